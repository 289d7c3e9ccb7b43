"""Overrides of schedules: one person replaces another for a time."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.rules.shifts import Shift
from services.alerts.store.sql import sql
from services.alerts.store.tables import oncall_override


async def current(tx: AsyncConnection) -> dict[str, list[Shift]]:
    """Return the overrides that are not over, by schedule."""
    found: defaultdict[str, list[Shift]] = defaultdict(list)
    for row in await listed(tx):
        found[row.schedule].append(Shift(row.begins, row.ends, row.person))
    return dict(found)


async def listed(tx: AsyncConnection) -> Sequence[Any]:
    """Return the overrides that are not over, by when they begin."""
    mine = sa.select(oncall_override).where(oncall_override.c.ends > sa.func.now())
    return (await tx.execute(mine.order_by(oncall_override.c.begins))).all()


# So that of two that overlap the second sees the first.
_ALONE = sql("LOCK TABLE oncall_override IN SHARE ROW EXCLUSIVE MODE")


async def add(
    tx: AsyncConnection,
    schedule: str,
    shift: Shift,
    *,
    by: str,
    why: str | None,
) -> int | None:
    """Return the override's id; None when another of this schedule overlaps."""
    await tx.execute(_ALONE)
    column = oncall_override.c
    same = sa.select(sa.literal(1)).where(
        column.schedule == schedule, column.begins < shift.ends, column.ends > shift.begins
    )
    if (await tx.execute(same)).first() is not None:
        return None
    values = {"begins": shift.begins, "ends": shift.ends, "person": shift.person}
    insert = sa.insert(oncall_override).values(schedule=schedule, by=by, why=why, **values)
    number: int = (await tx.execute(insert.returning(column.id))).scalar_one()
    return number


async def remove(tx: AsyncConnection, number: int) -> bool:
    mine = sa.delete(oncall_override).where(oncall_override.c.id == number)
    return bool((await tx.execute(mine)).rowcount)
