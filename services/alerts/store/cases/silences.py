"""Silences: until one ends, matching alerts are not sent, and their cases wait.

A silence's row is locked before any case, so that one that is ended early misses no case that an
intake is just opening.
"""

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.rules.silence import Matcher, Silence, Weekly, matcher
from services.alerts.store.sql import sql, statements
from services.alerts.store.tables import OPEN, alert_case, delivery, silence

SQL: Final = statements(__file__, open=OPEN)

OLD_MATCHERS: Final = ("event_type", "severity", "source", "dedup_key")
KEPT = timedelta(days=365)
MOST = 50
"""Each alert is compared with each."""
MOST_OPEN = 2_000
"""A preview looks at this many open deliveries, and at those of this many open cases."""
CHUNK = 100

_mine = silence.c
_runs = _mine.ends > sa.func.now()


def read(row: Any) -> Silence:
    if row.matchers is not None:
        matchers = tuple(map(matcher, row.matchers))
    else:
        old = ((name, getattr(row, name)) for name in OLD_MATCHERS)
        matchers = tuple(Matcher(name, "=", value) for name, value in old if value is not None)
    weekly = row.weekly and Weekly(
        frozenset(row.weekly["days"]),
        time.fromisoformat(row.weekly["begins"]),
        time.fromisoformat(row.weekly["ends"]),
        ZoneInfo(row.weekly["zone"]),
    )
    return Silence(row.id, matchers, row.critical, row.begins, row.ends, weekly)


async def running(tx: AsyncConnection) -> Sequence[Any]:
    """Return the silences that are not over, by their end."""
    return (await tx.execute(sa.select(silence).where(_runs).order_by(_mine.ends))).all()


async def since(tx: AsyncConnection, at: datetime, *, lock: bool) -> list[Silence]:
    """Return the silences that ran then or later, so that an alert that waited for us is silenced.

    :param lock: so that none of them ends before this transaction does, with a case that waits
    """
    asked = sa.select(silence).where(_mine.ends > at).order_by(_mine.id)
    found = await tx.execute(asked.with_for_update(read=True) if lock else asked)
    return list(map(read, found))


# So that many at once make no more than MOST.
_ALONE: Final = sql("LOCK TABLE silence IN SHARE ROW EXCLUSIVE MODE")


async def add(tx: AsyncConnection, **values: Any) -> int | None:
    """Return the id of a new silence; None if as many as may be are not over."""
    await tx.execute(_ALONE)
    if len(await running(tx)) >= MOST:
        return None
    values = {"event_type": "", "begins": sa.func.now()} | values
    number: int = (
        await tx.execute(sa.insert(silence).values(**values).returning(_mine.id))
    ).scalar_one()
    return number


async def open_keys(tx: AsyncConnection) -> list[Any]:
    """Return the keys of the newest deliveries that are open, or whose case is."""
    return list(await tx.execute(SQL["open_keys"], {"batch": MOST_OPEN}))


async def rows(tx: AsyncConnection, keys: Sequence[Any]) -> list[Any]:
    """Return these deliveries; no more than CHUNK, whose payloads may be large."""
    which = sa.tuple_(delivery.c.alert_id, delivery.c.target).in_([tuple(key) for key in keys])
    return list(await tx.execute(sa.select(delivery).where(which)))


async def end(tx: AsyncConnection, number: int) -> int | None:
    """End a silence now, and let its cases ask.

    :returns: how many cases; None if no such silence runs
    """
    ended = await tx.execute(
        sa.update(silence).where(_mine.id == number, _runs).values(ends=sa.func.now())
    )
    if not ended.rowcount:
        return None
    due = await tx.execute(
        sa.update(alert_case)
        .where(
            alert_case.c.silence == number,
            alert_case.c.state == "open",
            alert_case.c.generation == 0,  # nobody has put it off
            alert_case.c.step == 0,
        )
        .values(next_at=sa.func.now())
    )
    return due.rowcount


async def purge(tx: AsyncConnection) -> None:
    """Delete the silences that ended long ago."""
    await tx.execute(sa.delete(silence).where(_mine.ends < sa.func.now() - KEPT))
