import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db, periodic
from tests.conftest import NewDatabase
from tests.support.consumers import until


@pytest.fixture(params=["aiopg", "asyncpg"])
async def url(database: NewDatabase, request: pytest.FixtureRequest) -> str:
    return (await database("alerts", migrated=False)).replace("+aiopg", f"+{request.param}")


@pytest.fixture
async def engines(url: str) -> AsyncIterator[list[AsyncEngine]]:
    async with (
        db.connect(url, application_name="one") as one,
        db.connect(url, application_name="two") as two,
    ):
        yield [one, two]


class Job:
    def __init__(self) -> None:
        self.runs = self.at_work = self.most = 0
        self.go_on = asyncio.Event()

    async def __call__(self) -> None:
        self.runs += 1
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        await self.go_on.wait()
        self.at_work -= 1


async def stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def skipped(name: str) -> float:
    return periodic.RUNS.labels(name, "skipped")._value.get()


async def test_while_one_replica_is_at_it_the_other_skips_its_turn(
    engines: list[AsyncEngine],
) -> None:
    job = Job()
    before = skipped("shared")
    tasks = [asyncio.create_task(periodic.every(one, "shared", 0.01, job)) for one in engines]
    await until(lambda: job.runs == 1 and skipped("shared") > before + 2)
    job.go_on.set()
    await until(lambda: job.runs > 10)
    assert job.most == 1
    await stop(*tasks)


async def test_jobs_of_other_names_and_other_services_do_not_wait(
    database: NewDatabase,
) -> None:
    alerts = await database("alerts", migrated=False)
    job = Job()
    async with (
        db.connect(alerts, application_name="one") as one,
        db.connect(alerts, application_name="two") as two,
        db.connect(alerts.of("consent"), application_name="three") as consent,
    ):
        tasks = [
            asyncio.create_task(periodic.every(engine, name, 0.01, job))
            for engine, name in ((one, "a"), (two, "b"), (consent, "a"))
        ]
        await until(lambda: job.at_work == 3)
        job.go_on.set()
        await stop(*tasks)


HOLDER = """
import asyncio, sys
from libs.common import db, periodic

async def job():
    print("at work", flush=True)
    await asyncio.Event().wait()

async def main(url):
    async with db.connect(url, application_name="holder") as engine:
        await periodic.every(engine, "shared", 1, job)

asyncio.run(main(sys.argv[1]))
"""


async def test_when_the_holder_is_killed_at_its_work_another_takes_over(
    engines: list[AsyncEngine], url: str
) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, url, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    job = Job()
    before = skipped("shared")
    try:
        assert await asyncio.wait_for(holder.stdout.readline(), 30) == b"at work\n"
        task = asyncio.create_task(periodic.every(engines[0], "shared", 0.01, job))
        await until(lambda: skipped("shared") > before)
        assert job.runs == 0
    finally:
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
    await until(lambda: job.runs == 1)
    await stop(task)


async def test_a_job_that_fails_is_tried_again(engines: list[AsyncEngine]) -> None:
    runs = 0

    async def job() -> None:
        nonlocal runs
        runs += 1
        raise RuntimeError

    task = asyncio.create_task(periodic.every(engines[0], "failing", 0.01, job))
    await until(lambda: runs > 2)
    await stop(task)


async def test_a_cancelled_job_gives_its_lock_back(engines: list[AsyncEngine]) -> None:
    first, second = Job(), Job()
    task = asyncio.create_task(periodic.every(engines[0], "shared", 0.01, first))
    await until(lambda: first.at_work)
    await stop(task)
    other = asyncio.create_task(periodic.every(engines[1], "shared", 0.01, second))
    await until(lambda: second.at_work)
    await stop(other)


async def test_a_database_that_is_away_is_waited_for() -> None:
    url = "postgresql+aiopg://nobody:x@127.0.0.1:1/none"
    failed = periodic.RUNS.labels("away", "failed")._value
    before = failed.get()
    async with db.connect(url, application_name="away") as engine:
        task = asyncio.create_task(periodic.every(engine, "away", 0.01, Job()))
        await until(lambda: failed.get() > before + 1)
        await stop(task)
