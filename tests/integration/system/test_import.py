"""A file of leads, through the gateway to everybody whom it concerns."""

import json
import resource
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import aiohttp

from tests.support.stack import Stack
from tests.support.system import fresh_address

KIND = {"Content-Type": "application/x-ndjson"}


async def test_nothing_of_an_erased_person_is_stored_by_an_import(stack: Stack) -> None:
    gone, here, number = fresh_address(), fresh_address(), f"+48600{uuid4().int % 10**6:06}"
    for who in ({"email": gone}, {"phone": number}):
        erased = await stack.http("POST", "/api/consent/erase", who, key="admin")
        assert erased.status == 200, erased
    rows = [
        {"email": gone, "name": "Ewa Nowak", "phone": "600 700 800"},
        {"email": fresh_address(), "name": "Ewa Nowak", "phone": number},
        {"email": here, "name": "Jan Kot"},
    ]
    key = await stack.own_key("leads:import")
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    report = (await stack.http("POST", "/api/leads/import", raw=data, headers=KIND | key)).body
    assert [report[name] for name in ("rows", "created", "unchanged", "rejected")] == [3, 1, 2, []]
    table = "followups.chat_conversations"
    kept = stack.query(f"SELECT email FROM {table} WHERE email IN (%s, %s)", gone, here)
    assert [row.email for row in kept] == [here]
    assert stack.query(f"SELECT 1 FROM {table} WHERE state::text LIKE %s", f"%{number}%") == []


async def test_a_large_file_passes_without_being_held(stack: Stack) -> None:
    strange, rows = {f"c{n:02}": n for n in range(40)}, 60_000  # as a CRM may export them
    before = {name: _memory(stack, name) for name in ("gateway", "followups")}

    async def file() -> AsyncIterator[bytes]:
        for start in range(0, rows, 500):
            lines = [{"email": f"l{n}@"} | strange for n in range(start, start + 499)]
            lines.append({"email": f"l{start}@example.com", "wish": "x" * 380})
            yield b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    headers = KIND | await stack.own_key("leads:import")
    answer = await stack.http("POST", "/api/leads/import", raw=file(), headers=headers)
    report = answer.body
    assert (answer.status, report["rows"], report["created"]) == (200, rows, rows // 500)
    assert len(report["rejected"]) == rows - rows // 500
    grown = {name: _memory(stack, name) - before[name] for name in before}
    assert grown["gateway"] < 12e6, grown  # of 24 MB
    assert grown["followups"] < 200e6, grown  # each of 2.4 million faults took some 300 bytes
    alive = await stack.http("GET", "/api/health")
    assert alive.status == 200


async def test_a_file_that_is_cut_off_leaves_whole_batches_and_may_be_sent_again(
    stack: Stack,
) -> None:
    tag = fresh_address().partition("@")[0]
    rows = [{"email": f"{tag}.{n}@example.com"} for n in range(1200)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    headers = KIND | await stack.own_key("leads:import")

    async def cut() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        raise ConnectionResetError

    with suppress(aiohttp.ClientError):
        answer = await stack.http("POST", "/api/leads/import", raw=cut(), headers=headers)
        assert answer.status >= 400
    report = (await stack.http("POST", "/api/leads/import", raw=data, headers=headers)).body
    assert report["rows"] == 1200
    assert report["created"] + report["unchanged"] == 1200


def _memory(stack: Stack, name: str) -> int:
    pages = int(Path(f"/proc/{stack.pid(name)}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
