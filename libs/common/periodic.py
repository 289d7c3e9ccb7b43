"""Work that returns every so often, on one replica at a time."""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import db, logs

log = logs.get_logger(__name__)

RUNS = Counter("periodic_runs_total", "Runs of periodic jobs", ["job", "outcome"])


async def every(
    engine: AsyncEngine, name: str, seconds: float, job: Callable[[], Awaitable[object]]
) -> None:
    """Run the job now and then every `seconds`, until cancelled.

    A replica whose turn comes while another is at it skips that turn; when the other dies, the
    server gives its lock back. A job that loses its connection to the database in the middle may
    overlap with the next one: jobs are safe to repeat.
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
    async with engine.connect() as plain:
        # Autocommit: no transaction that stands idle while the job works.
        connection: AsyncConnection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        locked = await connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key)
        if not locked.scalar_one():
            return False
        try:
            await job()
        finally:
            await connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
    return True
