"""The real process, killed in the middle of a withdrawal."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import psycopg2
import pytest

from tests.integration.consent.conftest import ANNA, ENVIRONMENT, alone, until_one_waits
from tests.support.consumers import until
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually
from tests.support.ports import Ports
from tests.support.service import ServiceUnderTest

pytestmark = pytest.mark.promise("P4")

# Its disk hangs at the journal.
HELD = """
import time
from services.consent.__main__ import main
from services.consent.trail.append_only_file import AppendOnlyFile
write = AppendOnlyFile.write
def held(self, records):
    if self.path.name == "withdrawals.jsonl":
        time.sleep(60)
    write(self, records)
AppendOnlyFile.write = held
main()
"""


class Process(ServiceUnderTest):
    @property
    def records(self) -> Path:
        return self.log.parent / "records"

    async def unsubscribe(self, email: str) -> int | None:
        return await self._change("/api/unsubscribe", email, "public")

    async def erase(self, email: str) -> int | None:
        return await self._change("/api/consent/erase", email, "admin")

    async def _change(self, path: str, email: str, caller: str) -> int | None:
        headers = {"X-Internal-Key": ENVIRONMENT["INTERNAL_API_KEY"], "X-Caller": caller}
        with suppress(aiohttp.ClientError):
            return (await self.send("POST", path, headers, json={"email": email})).status
        return None


@pytest.fixture
async def process(
    consent_database: DatabaseUrl, ports: Ports, tmp_path: Path
) -> AsyncIterator[Process]:
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "DATABASE_URL": consent_database,
        "CONSENT_RECORDS_DIR": str(tmp_path / "records"),
        "HTTP_PORT": str(ports.take()),
        "METRICS_PORT": str(ports.take()),
    }
    async with aiohttp.ClientSession() as session:
        yield Process("consent", environment, tmp_path / "consent.log", session)


@pytest.fixture
def cursor(consent_database: DatabaseUrl) -> Iterator[Any]:
    """Look into the database past the service."""
    with closing(psycopg2.connect(consent_database.superuser_url)) as other:
        yield other.cursor()


def rows(cursor: Any) -> dict[str, float]:
    """Count what one withdrawal writes, and check that each subject has all of it."""
    counted = {}
    for table in ("data_subject", "consent_state", "suppression", "outbox", "consent_audit_log"):
        cursor.execute(f"SELECT count(*) FROM consent.{table}")
        (counted[table],) = cursor.fetchone()
    for table in ("consent_state", "suppression"):
        counted[table] /= 2  # of marketing, and of all
    cursor.execute("""
        SELECT count(DISTINCT data_subject.id) FROM consent.data_subject
        JOIN consent.consent_state ON consent_state.subject_id = data_subject.id
        JOIN consent.consent_audit_log ON consent_audit_log.subject_id = data_subject.id
    """)
    (counted["whole"],) = cursor.fetchone()
    cursor.connection.commit()
    return counted


async def test_a_withdrawal_killed_before_its_commit_leaves_nothing(
    cursor: Any, process: Process
) -> None:
    # All is written but the trail, whose head another session holds.
    cursor.execute("SELECT FROM consent.trail_head FOR UPDATE")
    waits = until_one_waits(cursor, for_query="WITH origin AS")
    await killed(process, process.unsubscribe(ANNA), waits, program=None)
    cursor.connection.rollback()
    await alone(cursor)
    assert set(rows(cursor).values()) == {0}


async def test_each_withdrawal_killed_at_any_moment_is_complete_or_absent_and_recorded_if_answered(
    cursor: Any, process: Process
) -> None:
    with process.running() as service:
        await eventually(process.answers, 60)
        asking = [asyncio.create_task(until_no_answer(process, name)) for name in range(16)]
        await until(lambda: rows(cursor)["whole"] >= 50)
        service.kill()
        answered = sum(await asyncio.gather(*asking))
    await alone(cursor)  # PostgreSQL may still be committing
    found = rows(cursor)
    assert 20 <= answered <= len({line["subject"] for line in journal(process)})
    assert answered <= found["whole"]
    assert set(found.values()) == {found["whole"]}


def journal(process: Process) -> list[dict[str, Any]]:
    path = process.records / "withdrawals.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def actions(cursor: Any) -> list[str]:
    cursor.execute("SELECT action FROM consent.consent_audit_log ORDER BY id")
    found = [action for (action,) in cursor.fetchall()]
    cursor.connection.commit()
    return found


async def test_a_withdrawal_killed_between_its_commit_and_its_record_is_recorded_at_the_next_start(
    cursor: Any, process: Process
) -> None:
    await killed(process, process.unsubscribe(ANNA), committed(cursor, "unsubscribe"))
    with process.running():
        await eventually(process.answers, 60)
        (line,) = await eventually(partial(recorded, process, 1))
        assert line["withdrawn"].keys() == {"marketing", "*"}
        assert ANNA not in json.dumps(line)


async def test_an_erasure_killed_between_its_commit_and_its_record_is_recorded_at_the_next_start(
    cursor: Any, process: Process
) -> None:
    await killed(process, process.erase(ANNA), committed(cursor, "erased"))
    with process.running():
        await eventually(process.answers, 60)
        lines = await eventually(partial(recorded, process, 2))
        assert lines[-1]["erased_at"]
        assert lines[-1]["suppression_hash"]


async def test_a_line_cut_by_a_kill_is_written_again(process: Process) -> None:
    with process.running():
        await eventually(process.answers, 60)
        assert await process.unsubscribe(ANNA) == 200
    path = process.records / "withdrawals.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with process.running():
        await eventually(process.answers, 60)
        await eventually(partial(recorded, process, 1))


async def killed(
    process: Process,
    asking: Coroutine[Any, Any, int | None],
    moment: Awaitable[None],
    program: str | None = HELD,
) -> None:
    """Kill the process at that moment of a request, which is not answered: nothing is promised."""
    with process.running(program) as service:
        await eventually(process.answers, 60)
        asked = asyncio.create_task(asking)
        await moment
        service.kill()
        assert await asked is None


async def committed(cursor: Any, action: str) -> None:
    await until(lambda: action in actions(cursor))


async def recorded(process: Process, most: int) -> list[dict[str, Any]]:
    found = journal(process)
    return found if len(found) >= most else []


async def until_no_answer(process: Process, name: int) -> int:
    """Withdraw for one address after the other; return how many were answered."""
    for number in count():
        status = await process.unsubscribe(f"person{name}-{number}@example.com")
        if status is None:
            return number
        assert status == 200
    raise AssertionError
