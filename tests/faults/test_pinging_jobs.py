"""Jobs that ping, fail and recover while processes and servers are killed.

The last ping that was answered 200 decides how each stands. Each time it went down it is told once,
and each time it came back, too; and none that pings is called silent, however late that is read.
"""

import asyncio
import itertools
import uuid
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.faults.conftest import Rig
from tests.support.cases import sections
from tests.support.eventually import eventually
from tests.support.stack import Stack, quick_alerts_config

pytestmark = [pytest.mark.faults, pytest.mark.promise("P9")]
SECTIONS = sections("heartbeat.missed")
JOBS = 6
ROUND = ("", "/fail", "/start", "/7", "", "/0")
PAUSE_SECONDS = 0.1


class Job:
    def __init__(self, stack: Stack, number: int = 0) -> None:
        self.stack, self.name, self.down = stack, f"job {uuid.uuid4()}", bool(number % 2)
        self.pings = 0

    async def begin(self) -> "Job":
        body = {"name": self.name, "every": "1h", "grace": "10m"}
        made = await self.stack.http("POST", "/api/heartbeats", body, key="admin")
        assert made.status == 201, made.body
        self.id, self.path = made.body["id"], urlsplit(made.body["url"]).path
        return self

    async def ping(self, signal: str) -> None:
        """Ping until it is taken, as `curl --retry` does."""
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.post(self.stack.url + self.path + signal) as answer:
                        assert answer.status in {200, 503}, answer.status
                        if answer.status == 200:
                            self.pings += 1
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(PAUSE_SECONDS)

    async def run(self, stopping: asyncio.Event) -> None:
        for signal in itertools.cycle(ROUND):
            if stopping.is_set():
                break
            await self.ping(signal)
            await asyncio.sleep(PAUSE_SECONDS)
        await self.ping("/fail" if self.down else "")

    def row(self) -> Any:
        (row,) = self.stack.query("SELECT * FROM alerts.heartbeat_watch WHERE id = %s", self.id)
        return row

    def told(self) -> list[tuple[str, bool]]:
        mine = (
            "SELECT payload ->> 'text' AS text, resolved FROM alerts.delivery"
            " WHERE payload ->> 'heartbeat' = %s AND target = 'slack' ORDER BY accepted_at"
        )
        return [(row.text, row.resolved) for row in self.stack.query(mine, self.name)]

    async def ends(self) -> None:
        """Wait until its last ping is applied; then what was told of it has to fit."""

        async def so() -> bool:
            return (self.row().case_id is not None) == self.down

        await eventually(so, 60)
        told = self.told()
        silent = [text for text, _ in told if "heard of" in text or "ended" in text]
        assert silent == []
        assert [resolved for _, resolved in told] == [bool(at % 2) for at in range(len(told))]
        assert len(told) % 2 == self.down, told


@pytest.fixture
def asking(stack: Stack) -> None:
    ask = {"to": "sms", "person": "anna", "wait": "1h"}
    quick_alerts_config(stack.folder, **sections("heartbeat.missed", chain=[ask]))
    stack.restart_now("alerts")


@pytest.mark.usefixtures("asking")
@pytest.mark.parametrize("victim", ["alerts", "gateway", "rabbitmq", "postgres"])
async def test_the_last_ping_decides_and_each_change_is_told_once(
    stack: Stack, victim: str
) -> None:
    await stack.sandbox.reset()
    jobs = [await Job(stack, number).begin() for number in range(JOBS)]
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(job.run(stopping))

        async def more(count: int) -> None:
            wanted = sum(job.pings for job in jobs) + count
            await eventually(
                lambda: asyncio.sleep(0, sum(job.pings for job in jobs)), 120,
                so=lambda pings: pings >= wanted,
            )  # fmt: skip

        await more(60)
        async with stack.without(victim):
            if victim != "gateway":
                await more(60)
            if victim == "alerts":  # they wait in its queue: as if that had lasted for long
                stack.query(
                    "UPDATE alerts.heartbeat_watch SET next_at = now() - interval '1 minute'"
                    " WHERE case_id IS NULL RETURNING id"
                )
        await more(60)
        stopping.set()
    for job in jobs:
        await job.ends()
    await eventually(stack.balanced, 90)
    for job in jobs:
        await stack.http("DELETE", f"/api/heartbeats/{job.id}", key="admin")


@pytest.mark.parametrize("table", ["heartbeat_watch", "heartbeat_ping", "case_total", "outbox"])
async def test_killed_at_a_step_of_a_failure_it_is_told_once(rig: Rig, table: str) -> None:
    job = await Job(rig.stack, number=1).begin()
    async with rig.dies_at(table):
        await job.ping("/3")
    assert (job.row().case_id, job.told()) == (None, [])
    await rig.restart()
    await job.ends()
    assert job.told() == [(f"{job.name} failed with exit code 3", False)]
    await rig.until_depth("alerts.pings", 0)
    if table == "case_total":  # what is back opens no case
        return
    job.down = False
    async with rig.dies_at(table):
        await job.ping("")
    await rig.restart()
    await job.ends()
    assert job.told()[1:] == [(f"{job.name} is back", True)]
    await eventually(rig.stack.balanced, 90)
