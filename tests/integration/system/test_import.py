"""A file of leads, through the gateway to everybody whom it concerns."""

import json
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import aiohttp

from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import WORDING, fresh_address

KIND = {"Content-Type": "application/x-ndjson"}


async def test_an_imported_agreement_with_its_evidence_counts_and_lifts_no_withdrawal(
    stack: Stack,
) -> None:
    await stack.sandbox.reset()
    agreed, left = fresh_address(), fresh_address()
    await stack.opt_in(left)
    await stack.http("POST", "/api/unsubscribe", {"email": left})
    columns = "email;consent_text;consent_at;consent_source\n"
    rows = "".join(f"{who};{WORDING.text};2024-05-01;targi\n" for who in (agreed, left))
    key = await stack.own_key("leads:import")
    report = await stack.http("POST", "/api/leads/import", csv=columns + rows, headers=key)
    assert [report.body[name] for name in ("created", "grants", "to_confirm")] == [2, 2, 0]

    async def recorded() -> bool:
        audits = [
            (await stack.http("GET", f"/api/consent/audit/{who}", key="admin")).body["entries"]
            for who in (agreed, left)
        ]
        return all(audit and audit[-1]["action"] == "opt-in" for audit in audits)

    await eventually(recorded, 30)
    for who, unsubscribed in ((agreed, False), (left, True)):
        await stack.follow_up(who)
        status = await stack.http("GET", f"/api/unsubscribe/status/{who}", key="service")
        assert status.body["unsubscribed"] is unsubscribed

    async def ended() -> list[str] | None:
        steps = []
        for who in (agreed, left):
            listed = await stack.http("GET", f"/api/followups?email={who}", key="service")
            steps.append(listed.body["items"][0]["status"])
        return steps if set(steps).isdisjoint({"scheduled", "handed_over"}) else None

    assert await eventually(ended, 40) == ["sent", "cancelled"]
    assert await stack.sandbox.mails(left) == []


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
    async with (
        aiohttp.ClientSession(headers=KIND | key) as session,
        session.post(f"{stack.url}/api/leads/import", data=data) as answer,
    ):
        report = await answer.json()
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
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{stack.url}/api/leads/import", data=file()) as answer,
    ):
        report = await answer.json()
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

    async with aiohttp.ClientSession(headers=headers) as session:
        try:
            async with session.post(f"{stack.url}/api/leads/import", data=cut()) as answer:
                assert answer.status >= 400
        except aiohttp.ClientError:
            pass
        async with session.post(f"{stack.url}/api/leads/import", data=data) as answer:
            report = await answer.json()
    assert report["rows"] == 1200
    assert report["created"] + report["unchanged"] == 1200


def _memory(stack: Stack, name: str) -> int:
    pages = int(Path(f"/proc/{stack.pid(name)}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
