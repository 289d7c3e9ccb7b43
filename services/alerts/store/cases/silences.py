"""Silences: until one ends, matching alerts are not sent, and their cases wait.

A silence's row is locked before any case, so that one that is ended early misses no case that an
intake is just opening.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.store.tables import alert_case, silence

MATCHERS: Final = ("event_type", "severity", "source", "dedup_key")
KEPT = timedelta(days=365)

_mine = silence.c
_runs = _mine.ends > sa.func.now()


async def running(tx: AsyncConnection) -> Sequence[Any]:
    """Return the silences that are not over, by their end."""
    return (await tx.execute(sa.select(silence).where(_runs).order_by(_mine.ends))).all()


async def lock(tx: AsyncConnection, event_types: Collection[str]) -> list[Any]:
    """Lock the silences of these event types that are not over, the last to end first."""
    found = await tx.execute(
        sa.select(silence)
        .where(_mine.event_type.in_(event_types), _runs)
        .order_by(_mine.id)
        .with_for_update(key_share=True)
    )
    return sorted(found, key=lambda row: row.ends, reverse=True)


def matching(silences: Sequence[Any], alert: Any) -> Any | None:
    """Return the first silence whose every matcher equals the alert's; NULL matches any."""
    for row in silences:
        if all(getattr(row, name) in {None, getattr(alert, name)} for name in MATCHERS):
            return row
    return None


async def add(
    tx: AsyncConnection, matchers: dict[str, str | None], ends: datetime, by: str, why: str
) -> int:
    """Return the id of a new silence."""
    values = {**matchers, "ends": ends, "by": by, "why": why}
    number: int = (
        await tx.execute(sa.insert(silence).values(**values).returning(_mine.id))
    ).scalar_one()
    return number


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
