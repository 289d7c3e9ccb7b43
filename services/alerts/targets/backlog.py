"""Releases a target's backlog, at a limited rate, after its breaker has closed."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.process import logs
from services.alerts.store.ledger import upkeep
from services.alerts.targets.throttle import Throttle

log = logs.get_logger(__name__)


async def release(engine: AsyncEngine, target: str, throttle: Throttle, *, per_second: int) -> None:
    """Requeue rows that wait for a retry, each time the breaker closes and while it stays so."""
    while True:
        await throttle.closed_again.wait()
        throttle.closed_again.clear()
        released = per_second
        while released == per_second and throttle.seconds_shut == 0:
            try:
                async with engine.begin() as tx:
                    rows = await upkeep.waiting(tx, target, per_second)
                    await upkeep.requeue(tx, rows)
            except Exception as error:
                if not postgres.is_transient(error):
                    raise
                log.warning(
                    "backlog.database_unavailable", target=target, error=type(error).__name__
                )
            else:
                released = len(rows)
                log.info("backlog.released", target=target, rows=released)
            await asyncio.sleep(1)
