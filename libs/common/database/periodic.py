"""Periodic jobs, each on one replica at a time."""

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.process import tasks
from libs.common.process.logs import log
from libs.common.process.metrics import SHARED

BEAT_SECONDS = postgres.IDLE_SECONDS / 4

# Not `job`, which is Prometheus' own label for the process.
RUNS = SHARED.counter("periodic_runs_total")

FAILING = SHARED.gauge("periodic_failing")


async def every(
    engine: AsyncEngine,
    name: str,
    seconds: float,
    job: Callable[[], Awaitable[object]],
    *,
    on_each: bool = False,
) -> None:
    """Run the job immediately and then every `seconds`, until cancelled.

    A replica skips a run while another one is running the job. If that one dies, freezes or is cut
    off, the server frees its lock within `postgres.IDLE_SECONDS`. A frozen replica may then still
    overlap with the next run: jobs must be safe to repeat.

    :param on_each: run on every replica, for work on its own disk
    """
    while True:
        try:
            if on_each:
                await job()
                outcome = "done"
            else:
                outcome = "done" if await _alone(engine, name, job) else "skipped"
        except Exception as error:
            outcome = "failed"
            if postgres.is_transient(error):
                log.warning("periodic.database_unavailable", job=name)
            else:  # the next run may succeed; the service continues
                log.exception("periodic.failed", job=name)
        RUNS.labels(name, outcome).inc()
        FAILING.labels(name).set(outcome == "failed")
        await asyncio.sleep(seconds)


async def _alone(engine: AsyncEngine, name: str, job: Callable[[], Awaitable[object]]) -> bool:
    # With the role's name, as all services share one database and its lock keys.
    key = {"key": postgres.advisory_key(f"periodic:{engine.url.username}:{name}")}
    # In a transaction, because the server ends idle ones. It may last, because it holds no snapshot
    # between its statements.
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
