"""What each target had in each minute."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.console.store.sql import run
from services.console.store.tables import sample

NUMBERS = ("pending", "delivered", "failed")


async def add(tx: AsyncConnection, targets: Mapping[str, Mapping[str, int]]) -> None:
    """Keep what each target has now, unless this minute has been kept."""
    minute = sa.func.date_trunc("minute", sa.func.now())
    rows = [
        {"at": minute, "target": target, **{name: counts[name] for name in NUMBERS}}
        for target, counts in targets.items()
    ]
    if rows:
        await tx.execute(insert(sample).values(rows).on_conflict_do_nothing())


async def by_time(tx: AsyncConnection, unit: str, zone: str, since: datetime) -> Sequence[Any]:
    """Return for each target and unit of time the most that waited, and what was added since.

    :param unit: `hour` or `day`, as it begins in this zone; one without a sample has no row
    """
    return await run(tx, "samples_by_time", unit=unit, zone=zone, since=since)
