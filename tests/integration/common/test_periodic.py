import asyncio

from sqlalchemy import text

from libs.common import db, periodic
from tests.conftest import NewDatabase


async def test_one_replica_at_a_time_works_and_another_takes_over_when_it_dies(
    database: NewDatabase,
) -> None:
    url = await database("alerts", migrated=False)
    worked: list[str] = []
    at_work, most = 0, 0
    changed = asyncio.Event()

    async def job(name: str) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        worked.append(name)
        changed.set()
        await asyncio.sleep(0.02)  # long enough for the other to try meanwhile
        at_work -= 1

    async def until(name: str) -> None:
        worked.clear()
        async with asyncio.timeout(20):
            while name not in worked:
                changed.clear()
                await changed.wait()

    async with (
        db.connect(url, application_name="one") as one,
        db.connect(url, application_name="two") as two,
    ):
        tasks = {
            name: asyncio.create_task(
                periodic.every(engine, "test", 0.01, lambda name=name: job(name))
            )
            for name, engine in (("one", one), ("two", two))
        }
        await until("one")
        await until("two")
        assert most == 1
        async with two.begin() as tx:  # the holder's session dies
            await tx.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'one'"
                )
            )
        await until("two")
        await until("one")  # and it is back on a new session
        for task in tasks.values():
            task.cancel()
        await asyncio.wait(tasks.values())


async def test_a_job_that_fails_is_tried_again(database: NewDatabase) -> None:
    url = await database("alerts", migrated=False)
    runs = 0
    twice = asyncio.Event()

    async def job() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            twice.set()
        raise RuntimeError

    async with db.connect(url, application_name="test") as engine:
        task = asyncio.create_task(periodic.every(engine, "test", 0.01, job))
        async with asyncio.timeout(20):
            await twice.wait()
        task.cancel()
        await asyncio.wait({task})
