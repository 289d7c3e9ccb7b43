"""Silences: until one ends, matching alerts are not sent, and their cases wait.

A silence's row is locked before any case, so that one that is ended early misses no case that an
intake is just opening.
"""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.config.matchers import matcher
from services.alerts.rules.silence import Silence, Weekly
from services.alerts.store.tables import OPEN, delivery, names, silence

run = Queries(__file__, open=OPEN, silence=names(silence), delivery=names(delivery))

OLD_MATCHERS: Final = ("event_type", "severity", "source", "dedup_key")
MOST = 50
"""Each alert is compared with each."""
MOST_OPEN = 2_000
"""A preview looks at this many open deliveries, and at those of this many open cases."""
CHUNK = 100
"""Of deliveries, whose payloads may be large."""


def old_texts(of: Any) -> list[str]:
    """Return the matchers that the four names of before stand for, of a row or a request."""
    old = ((name, getattr(of, name)) for name in OLD_MATCHERS)
    return [f'{name}="{value}"' for name, value in old if value is not None]


def read(row: Any) -> Silence:
    texts = old_texts(row) if row.matchers is None else row.matchers
    matchers = tuple(map(matcher, texts))
    weekly = row.weekly and Weekly.read(row.weekly)
    return Silence(row.id, matchers, row.critical, row.begins, row.ends, weekly)


async def since(tx: AsyncConnection, at: datetime, *, lock: bool) -> list[Silence]:
    """Return the silences that ran then or later, so that an alert that waited for us is silenced.

    :param lock: so that none of them ends before this transaction does, with a case that waits
    """
    return list(map(read, await run(tx, "lock_since" if lock else "since", at=at)))


async def add(tx: AsyncConnection, **values: Any) -> int | None:
    """Return the id of a new silence; None if as many as may be are not over."""
    await run(tx, "alone")
    if len(await run(tx, "running")) >= MOST:
        return None
    new = sa.insert(silence).values({"event_type": "", "begins": sa.func.now()} | values)
    number: int = (await tx.execute(new.returning(silence.c.id))).scalar_one()
    return number


async def end(tx: AsyncConnection, number: int) -> int | None:
    """End a silence now, and let its cases ask.

    :returns: how many cases; None if no such silence runs
    """
    if not (await run(tx, "end", id=number)).rowcount:
        return None
    return (await run(tx, "let_ask", id=number)).rowcount
