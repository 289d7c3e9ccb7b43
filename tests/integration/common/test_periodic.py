import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.up.servers import Postgres
from libs.common.database import periodic
from libs.common.database import postgres as db
from libs.common.process.tasks import end
from tests.conftest import NewDatabase
from tests.support.consumers import until
from tests.support.proxy import Proxy


@pytest.fixture
async def url(database: NewDatabase) -> str:
    return await database("alerts", migrated=False)


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


@asynccontextmanager
async def running(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        await end(*tasks)


def skipped(name: str) -> float:
    return float(periodic.RUNS.labels(name, "skipped")._value.get())


async def test_a_replica_skips_its_run_while_another_runs_the_job(
    engines: list[AsyncEngine],
) -> None:
    job = Job()
    before = skipped("shared")
    async with running(*(periodic.every(one, "shared", 0.01, job) for one in engines)):
        await until(lambda: job.runs == 1 and skipped("shared") > before + 2)
        job.go_on.set()
        await until(lambda: job.runs > 10)
        assert job.most == 1


def impatient(engine: AsyncEngine) -> None:
    """Have the server end its transactions after two seconds in which nothing happens."""

    @event.listens_for(engine.sync_engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '2s'")


async def test_a_silent_lock_holder_loses_its_lock(
    postgres: Postgres, engines: list[AsyncEngine], url: str
) -> None:
    stuck, job = Job(), Job()
    async with (
        Proxy(postgres.port) as proxy,
        db.connect(
            make_url(url).set(port=proxy.port).render_as_string(hide_password=False),
            application_name="stuck",
        ) as engine,
        running(periodic.every(engine, "shared", 1, stuck)),
    ):
        impatient(engine)
        await until(lambda: stuck.at_work)
        proxy.stall()
        async with running(periodic.every(engines[0], "shared", 0.1, job)):
            await until(lambda: job.at_work)


async def test_a_job_may_last_longer_than_a_transaction_may_be_idle(
    engines: list[AsyncEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "BEAT_SECONDS", 0.2)
    impatient(engines[0])
    long, other = Job(), Job()
    done, before = periodic.RUNS.labels("shared", "done")._value, skipped("shared")
    async with running(periodic.every(engines[0], "shared", 60, long)):
        await until(lambda: long.at_work)
        async with running(periodic.every(engines[1], "shared", 0.1, other)):
            await until(lambda: skipped("shared") > before + 30)
        assert not other.runs
        finished = done.get()
        long.go_on.set()
        await until(lambda: done.get() > finished)


async def test_a_failed_job_is_retried_and_reported_until_it_succeeds(
    engines: list[AsyncEngine],
) -> None:
    runs, failing, healed = 0, periodic.FAILING.labels("failing")._value, asyncio.Event()

    async def job() -> None:
        nonlocal runs
        runs += 1
        if not healed.is_set():
            raise RuntimeError

    async with running(periodic.every(engines[0], "failing", 0.01, job)):
        await until(lambda: runs > 2)
        assert failing.get() == 1
        healed.set()
        await until(lambda: failing.get() == 0)


async def test_a_job_of_each_replica_runs_on_all_of_them_at_once(
    engines: list[AsyncEngine],
) -> None:
    jobs = [Job(), Job()]
    async with running(
        *(
            periodic.every(engine, "each", 0.01, job, on_each=True)
            for engine, job in zip(engines, jobs, strict=True)
        )
    ):
        await until(lambda: all(job.at_work for job in jobs))


async def test_a_cancelled_job_gives_its_lock_back(engines: list[AsyncEngine]) -> None:
    first, second = Job(), Job()
    async with running(periodic.every(engines[0], "shared", 0.01, first)):
        await until(lambda: first.at_work)
    async with running(periodic.every(engines[1], "shared", 0.01, second)):
        await until(lambda: second.at_work)


async def test_the_relay_waits_for_an_unavailable_database() -> None:
    url = "postgresql+aiopg://nobody:x@127.0.0.1:1/none"
    failed = periodic.RUNS.labels("away", "failed")._value
    before = failed.get()
    async with (
        db.connect(url, application_name="away") as engine,
        running(periodic.every(engine, "away", 0.01, Job())),
    ):
        await until(lambda: failed.get() > before + 1)
