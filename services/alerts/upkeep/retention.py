"""Purges the ledger: one batch, and one short transaction, at a time."""

from collections.abc import Awaitable, Callable
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.process import logs
from services.alerts.rules.delivery import State
from services.alerts.store.cases import heartbeats, silences
from services.alerts.store.cases import links as case_links
from services.alerts.store.cases import privacy as case_privacy
from services.alerts.store.ledger import upkeep
from services.alerts.store.ledger.upkeep import Batch

log = logs.get_logger(__name__)

BATCH = 1_000
Note = Callable[[AsyncConnection, int], Awaitable[None]]
"""Records how many rows a transaction deleted."""


async def run(engine: AsyncEngine, *, delivered: float, payloads: float) -> None:
    """Purge rows and empty payloads that are too old.

    :param delivered: seconds for which rows that were delivered or discarded are kept
    :param payloads: seconds for which the payloads of all others are kept, and pings of jobs
    """
    purged = await purge(engine, delivered)
    async with engine.begin() as tx:
        await case_links.purge(tx)
        await silences.purge(tx)
        await heartbeats.purge(tx, payloads)
    forgotten = await _all(engine, partial(upkeep.forget, seconds=payloads))
    await _cases(engine, payloads)
    if purged or forgotten:
        log.info("retention.done", purged=purged, forgotten=forgotten)


async def _cases(engine: AsyncEngine, payloads: float) -> None:
    for work in (partial(case_privacy.forget, seconds=payloads), case_privacy.purge):
        done = BATCH
        while done == BATCH:
            async with engine.begin() as tx:
                done = await work(tx, batch=BATCH)


async def purge(engine: AsyncEngine, seconds: float, note: Note | None = None) -> int:
    """Delete rows that were delivered or discarded this long ago; totals still count them.

    :returns: how many rows
    """
    done = 0
    for state in (State.DELIVERED, State.DISCARDED):
        done += await _all(engine, partial(upkeep.purge, state=state, seconds=seconds), note)
    return done


async def _all(
    engine: AsyncEngine, work: Callable[..., Awaitable[Batch]], note: Note | None = None
) -> int:
    done, after = 0, upkeep.BEGINNING
    while True:
        async with engine.begin() as tx:
            batch = await work(tx, after=after, batch=BATCH)
            if note is not None:
                await note(tx, batch.done)
        if not batch.done:
            return done
        done, after = done + batch.done, batch.last
