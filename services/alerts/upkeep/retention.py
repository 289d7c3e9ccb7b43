"""Purges the ledger: one batch, and one short transaction, at a time."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.process.logs import log
from services.alerts.rules.delivery import State
from services.alerts.store import subscriptions
from services.alerts.store.cases import cases, heartbeats, silences
from services.alerts.store.cases import privacy as case_privacy
from services.alerts.store.ledger import upkeep
from services.alerts.store.ledger.queries import BEGINNING

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
        await cases.run(tx, "purge_links")
        await silences.run(tx, "purge")
        await heartbeats.run(tx, "purge", seconds=payloads)
        await subscriptions.run(tx, "purge")
    forgotten = await _all(engine, "forget", {"seconds": payloads})
    await _cases(engine, payloads)
    if purged or forgotten:
        log.info("retention.done", purged=purged, forgotten=forgotten)


async def _cases(engine: AsyncEngine, payloads: float) -> None:
    for name, seconds in (("forget", payloads), ("purge", case_privacy.KEPT_SECONDS)):
        done = BATCH
        while done == BATCH:
            found = await case_privacy.run.alone(engine, name, seconds=seconds, batch=BATCH)
            done = found.scalar_one()


async def purge(engine: AsyncEngine, seconds: float, note: Note | None = None) -> int:
    """Delete rows that were delivered or discarded this long ago; totals still count them.

    :returns: how many rows
    """
    done = 0
    for state in (State.DELIVERED, State.DISCARDED):
        done += await _all(engine, "purge", {"state": state, "seconds": seconds}, note)
    return done


async def _all(
    engine: AsyncEngine, name: str, which: Mapping[str, Any], note: Note | None = None
) -> int:
    """Each batch begins where the last one ended: none scans the dead rows of those before it.

    :param name: of a statement
    """
    total, begin = 0, BEGINNING[0]
    while True:
        async with engine.begin() as tx:
            done, last = (await upkeep.run(tx, name, **which, begin=begin, batch=BATCH)).one()
            if note is not None:
                await note(tx, done)
        if not done:
            return total
        total, begin = total + done, last
