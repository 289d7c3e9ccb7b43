"""Work that returns every so often, on one replica at a time."""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db, logs, tasks

log = logs.get_logger(__name__)

BEAT_SECONDS = db.IDLE_SECONDS / 4

# Not `job`: Prometheus calls the process so, and would put ours aside.
RUNS = Counter("periodic_runs_total", "Runs of periodic jobs", ["task", "outcome"])


async def every(
    engine: AsyncEngine, name: str, seconds: float, job: Callable[[], Awaitable[object]]
) -> None:
    """Run the job now and then every `seconds`, until cancelled.

    A replica whose turn comes while another is at it skips that turn. The server gives the lock of
    one that died, is frozen or out of reach to the next within `db.IDLE_SECONDS`; what a frozen one
    then still does may overlap with that: jobs are safe to repeat.
    """
    while True:
        try:
            outcome = "done" if await _alone(engine, name, job) else "skipped"
        except Exception as error:
            outcome = "failed"
            if db.may_pass(error):
                log.warning("periodic.database_unavailable", job=name)
            else:  # the next turn may succeed, and the other work of this service goes on
                log.exception("periodic.failed", job=name)
        RUNS.labels(name, outcome).inc()
        await asyncio.sleep(seconds)


async def _alone(engine: AsyncEngine, name: str, job: Callable[[], Awaitable[object]]) -> bool:
    # The role's name: all services share one database, and with it the space of lock keys.
    key = {"key": db.advisory_key(f"periodic:{engine.url.username}:{name}")}
    # A transaction, for the server ends one in which nothing happens; and it keeps no snapshot
    # between its statements, so it may last.
    async with engine.begin() as tx:
        locked = await tx.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), key)
        if not locked.scalar_one():
            return False
        working = asyncio.ensure_future(job())
        try:
            while not (await asyncio.wait({working}, timeout=BEAT_SECONDS))[0]:
                await tx.execute(text("SELECT"))
        finally:
            await tasks.end(working)
        await working
    return True
