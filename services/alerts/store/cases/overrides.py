"""Overrides of schedules: one person replaces another for a time; and people's quiet hours."""

from collections import defaultdict
from dataclasses import asdict

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.rules.shifts import Shift
from services.alerts.store.tables import names, oncall_override

run = Queries(__file__, json=("weekly",), columns=names(oncall_override))


async def current(tx: AsyncConnection) -> dict[str, list[Shift]]:
    """Return the overrides that are not over, by schedule."""
    found: defaultdict[str, list[Shift]] = defaultdict(list)
    for row in await run(tx, "current"):
        found[row.schedule].append(Shift(row.begins, row.ends, row.person))
    return dict(found)


async def add(
    tx: AsyncConnection, schedule: str, shift: Shift, *, by: str, why: str | None
) -> int | None:
    """Return the override's id; None when another of this schedule overlaps."""
    await run(tx, "alone")
    added = await run(tx, "add", schedule=schedule, **asdict(shift), by=by, why=why)
    number: int | None = added.scalar()
    return number
