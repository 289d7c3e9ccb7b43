"""Event types that are missed when none comes in time.

A row is locked before any case. Its lock orders a sign and the timer (docs/protocols.md, D).
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.store.cases import cases
from services.alerts.store.tables import heartbeat

_mine = heartbeat.c


async def configure(tx: AsyncConnection, deadlines: Mapping[str, datetime]) -> None:
    """Start watching what is new, and forget what is not watched any more.

    :param deadlines: by new event type
    """
    await tx.execute(sa.delete(heartbeat).where(_mine.name.not_in(list(deadlines))))
    if deadlines:
        rows = [{"name": name, "next_at": at} for name, at in sorted(deadlines.items())]
        await tx.execute(insert(heartbeat).values(rows).on_conflict_do_nothing())


async def sign(tx: AsyncConnection, deadlines: Mapping[str, datetime], now: datetime) -> None:
    """Record that these came: move each one's deadline, never back, and end its case.

    :param deadlines: for the next event of each
    """
    locked = await tx.execute(
        sa.select(heartbeat)
        .where(_mine.name.in_(list(deadlines)))
        .order_by(_mine.name)
        .with_for_update()
    )
    for row in locked.all():
        deadline = deadlines[row.name]
        if deadline <= row.next_at:  # older than the last one, or that one again
            continue
        ended = row.case_id is not None and deadline > now
        if ended:
            await cases.resolve_one(tx, row.case_id)
        values = {"next_at": deadline, "case_id": None if ended else row.case_id}
        await tx.execute(sa.update(heartbeat).where(_mine.name == row.name).values(values))


async def due(tx: AsyncConnection, names: Collection[str]) -> list[Any]:
    """Lock those whose deadline is over and that have no case, skipping locked ones."""
    found = await tx.execute(
        sa.select(heartbeat)
        .where(_mine.name.in_(names), _mine.case_id.is_(None), _mine.next_at <= sa.func.now())
        .order_by(_mine.name)
        .with_for_update(skip_locked=True)
    )
    return list(found)


async def wait(tx: AsyncConnection, name: str, until: datetime) -> None:
    await tx.execute(sa.update(heartbeat).where(_mine.name == name).values(next_at=until))


async def missed(tx: AsyncConnection, name: str, case_id: UUID) -> None:
    await tx.execute(sa.update(heartbeat).where(_mine.name == name).values(case_id=case_id))
