"""What each target had in each minute."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.console.store.tables import sample

NUMBERS = ("pending", "delivered", "failed")
_BY_TIME = sa.text("""
    WITH step AS (
        SELECT target, pending,
            date_trunc(CAST(:unit AS text), at, CAST(:zone AS text)) AS begin,
            greatest(delivered - lag(delivered) OVER before, 0) AS delivered,
            greatest(failed - lag(failed) OVER before, 0) AS failed
        FROM sample WHERE at >= CAST(:since AS timestamptz)
        WINDOW before AS (PARTITION BY target ORDER BY at)
    )
    SELECT target, begin, max(pending) AS pending,
        CAST(sum(delivered) AS bigint) AS delivered, CAST(sum(failed) AS bigint) AS failed
    FROM step GROUP BY target, begin ORDER BY target, begin
""")


async def add(tx: AsyncConnection, targets: Mapping[str, Mapping[str, int]]) -> None:
    """Keep what each target has now, unless this minute has been kept."""
    minute = sa.func.date_trunc("minute", sa.func.now())
    rows = [
        {"at": minute, "target": target, **{name: counts[name] for name in NUMBERS}}
        for target, counts in targets.items()
    ]
    if rows:
        await tx.execute(insert(sample).values(rows).on_conflict_do_nothing())


async def by_time(
    tx: AsyncConnection, unit: str, zone: str, since: datetime
) -> Sequence[sa.Row[Any]]:
    """Return for each target and unit of time the most that waited, and what was added since.

    :param unit: `hour` or `day`, as it begins in this zone; one without a sample has no row
    """
    asked = {"unit": unit, "zone": zone, "since": since}
    return (await tx.execute(_BY_TIME, asked)).all()


async def purge(tx: AsyncConnection, days: int) -> None:
    old = sa.func.now() - sa.text(f"interval '{days} days'")
    await tx.execute(sa.delete(sample).where(sample.c.at < old))
