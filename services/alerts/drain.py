"""After a breaker has closed: what waits for its next attempt goes out now, at a limited rate."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db, logs
from services.alerts import metrics
from services.alerts.store import upkeep
from services.alerts.valve import Valve

log = logs.get_logger(__name__)


async def drain(engine: AsyncEngine, target: str, valve: Valve, *, per_second: int) -> None:
    """Bring forward the rows of a target that is back, for as long as it stays so."""
    while True:
        await valve.closed_again.wait()
        valve.closed_again.clear()
        brought = per_second
        while brought == per_second and valve.seconds_shut == 0:
            try:
                async with engine.begin() as tx:
                    rows = await upkeep.waiting(tx, target, per_second)
                    if rows:
                        await upkeep.hand_out(tx, rows)
            except Exception as error:
                if not db.may_pass(error):
                    raise
                log.warning("drain.again", target=target, error=type(error).__name__)
            else:
                brought = len(rows)
                metrics.BROUGHT_FORWARD.labels(target).inc(brought)
                log.info("drain.brought_forward", target=target, rows=brought)
            await asyncio.sleep(1)
