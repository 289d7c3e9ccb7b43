"""Work that one replica at a time does, again and again."""

import asyncio
from collections.abc import Awaitable, Callable

import prometheus_client
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db, logs

log = logs.get_logger(__name__)

_RUNS = prometheus_client.Counter("periodic_runs_total", "Runs by outcome.", ["job", "outcome"])

_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_UNLOCK = text("SELECT pg_advisory_unlock(:key)")


async def every(
    engine: AsyncEngine, name: str, seconds: float, job: Callable[[], Awaitable[object]]
) -> None:
    """Run `job` every so many seconds on one of all processes that share the database.

    The lock belongs to a database session: it ends with the process that holds it, and the next
    round runs elsewhere. A session that is lost while the job runs lets another replica begin, so
    a job must be safe to run twice. A job that fails is logged and tried in the next round.
    """
    key = {"key": db.advisory_key(f"periodic:{name}")}
    while True:
        await asyncio.sleep(seconds)
        try:
            async with engine.connect() as connection:
                # AUTOCOMMIT: no transaction is left open (and timed out) while the job runs
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                if not (await connection.execute(_TRY_LOCK, key)).scalar_one():
                    continue
                try:
                    await job()
                finally:
                    await connection.execute(_UNLOCK, key)
        except Exception as error:
            _RUNS.labels(name, "failed").inc()
            if db.is_unavailable(error):
                log.warning("periodic.database_away", job=name)
            else:
                log.exception("periodic.failed", job=name)
        else:
            _RUNS.labels(name, "done").inc()
