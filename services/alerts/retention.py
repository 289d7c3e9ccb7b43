"""What leaves the ledger with time, a batch and a short transaction at a time."""

from collections.abc import Awaitable, Callable
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import logs
from services.alerts.alert import State
from services.alerts.store import upkeep
from services.alerts.store.upkeep import Batch

log = logs.get_logger(__name__)

BATCH = 1_000


class Retention:
    def __init__(self, engine: AsyncEngine, *, delivered: float, payloads: float) -> None:
        """Take how long what was delivered is kept, and what any other says; seconds."""
        self._engine = engine
        self._delivered = delivered
        self._payloads = payloads

    async def run(self) -> None:
        purged = await purge(self._engine, self._delivered)
        forgotten = await _all(self._engine, partial(upkeep.forget, seconds=self._payloads))
        if purged or forgotten:
            log.info("retention.done", purged=purged, forgotten=forgotten)

    async def count(self) -> None:
        """Keep the ledger check's cost independent of what was delivered."""
        more = True
        while more:
            async with self._engine.begin() as tx:
                more = await upkeep.count(tx)


async def purge(engine: AsyncEngine, seconds: float) -> int:
    """Delete what is done for so long, still counted.

    :returns: how many rows
    """
    done = 0
    for state in (State.DELIVERED, State.DISCARDED):
        done += await _all(engine, partial(upkeep.purge, state=state, seconds=seconds))
    return done


async def _all(engine: AsyncEngine, work: Callable[..., Awaitable[Batch]]) -> int:
    done, after = 0, upkeep.BEGINNING
    while True:
        async with engine.begin() as tx:
            batch = await work(tx, after=after, batch=BATCH)
        if not batch.done:
            return done
        done, after = done + batch.done, batch.last
