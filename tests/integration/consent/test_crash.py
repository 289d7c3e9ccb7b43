"""The real process, killed in the middle of a withdrawal."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import psycopg2
import pytest

from tests.integration.consent.conftest import ENVIRONMENT, alone, until_one_waits
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually
from tests.support.ports import Ports

ROOT = Path(__file__).parents[3]
ANNA = "anna@example.com"


class Process:
    def __init__(self, url: DatabaseUrl, ports: Ports, log: Path) -> None:
        self.port, self.log = ports.take(), log
        self._environment = {
            **os.environ,
            **ENVIRONMENT,
            "DATABASE_URL": url,
            "CONSENT_RECORDS_DIR": str(log.parent / "records"),
            "HTTP_PORT": str(self.port),
            "METRICS_PORT": str(ports.take()),
        }

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.consent"],
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def process(consent_database: DatabaseUrl, ports: Ports, tmp_path: Path) -> Process:
    return Process(consent_database, ports, tmp_path / "consent.log")


@pytest.fixture
async def client(process: Process) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{process.port}",
        headers={"X-Internal-Key": ENVIRONMENT["INTERNAL_API_KEY"], "X-Caller": "public"},
    ) as session:
        yield session


async def ready(client: aiohttp.ClientSession) -> None:
    async def healthy() -> bool:
        try:
            async with client.get("/health") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await eventually(healthy, seconds=60)


async def unsubscribe(client: aiohttp.ClientSession, email: str) -> int | None:
    try:
        async with client.post("/api/unsubscribe", json={"email": email}) as answer:
            return answer.status
    except aiohttp.ClientError:
        return None


def rows(cursor: Any) -> dict[str, int]:
    """Count what one withdrawal writes, and check that each subject has all of it."""
    counted = {}
    for table in ("data_subject", "consent_state", "suppression", "outbox", "consent_audit_log"):
        cursor.execute(f"SELECT count(*) FROM consent.{table}")
        (counted[table],) = cursor.fetchone()
    cursor.execute("""
        SELECT count(*) FROM consent.data_subject
        JOIN consent.consent_state ON consent_state.subject_id = data_subject.id
        JOIN consent.consent_audit_log ON consent_audit_log.subject_id = data_subject.id
    """)
    (counted["whole"],) = cursor.fetchone()
    cursor.connection.commit()
    return counted


async def test_a_withdrawal_killed_before_its_commit_leaves_nothing(
    consent_database: DatabaseUrl, process: Process, client: aiohttp.ClientSession
) -> None:
    with closing(psycopg2.connect(consent_database.superuser_url)) as other:
        cursor = other.cursor()
        with process.running() as service:
            await ready(client)
            # All is written but the trail, whose head another session holds.
            cursor.execute("SELECT FROM consent.trail_head FOR UPDATE")
            asked = asyncio.create_task(unsubscribe(client, ANNA))

            await until_one_waits(cursor, for_query="WITH origin AS")
            service.kill()
            assert await asked is None
        other.rollback()

        await alone(cursor)
        assert set(rows(cursor).values()) == {0}


async def test_each_withdrawal_killed_at_any_moment_is_complete_or_absent(
    consent_database: DatabaseUrl, process: Process, client: aiohttp.ClientSession
) -> None:
    with closing(psycopg2.connect(consent_database.superuser_url)) as other:
        cursor = other.cursor()
        with process.running() as service:
            await ready(client)
            asking = [asyncio.create_task(until_no_answer(client, name)) for name in range(16)]

            async def some_are_through() -> bool:
                return rows(cursor)["whole"] >= 50

            await eventually(some_are_through)
            service.kill()
            answered = sum(await asyncio.gather(*asking))
        await alone(cursor)  # PostgreSQL may still be committing
        found = rows(cursor)
        assert 0 < answered <= found["whole"]
        assert set(found.values()) == {found["whole"]}


async def until_no_answer(client: aiohttp.ClientSession, name: int) -> int:
    """Withdraw for one address after the other; return how many were answered."""
    for number in count():
        status = await unsubscribe(client, f"person{name}-{number}@example.com")
        if status is None:
            return number
        assert status == 200
    raise AssertionError
