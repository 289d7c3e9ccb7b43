"""Retries and discards of many alerts."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.console.store import versions
from services.console.store.tables import bulk_action, staff

LEASE_SECONDS = 60
"""Longer than a call of the gateway takes."""
_mine = bulk_action.c
_runs = _mine.state == "running"


async def add(tx: AsyncConnection, values: Mapping[str, Any]) -> None:
    await tx.execute(sa.insert(bulk_action).values(**values))


async def find(tx: AsyncConnection, bulk_id: UUID) -> sa.Row[Any] | None:
    """Return one, with the `name` of who began it."""
    found = await tx.execute(
        sa.select(bulk_action, staff.c.name).join(staff).where(_mine.id == bulk_id)
    )
    return found.first()


async def running(tx: AsyncConnection) -> Sequence[sa.Row[Any]]:
    return (await tx.execute(sa.select(bulk_action).where(_runs).order_by(_mine.at))).all()


async def claim(tx: AsyncConnection) -> sa.Row[Any] | None:
    """Take one that no process works on, until its lease is over, with who began it.

    None of a restored database that is not accepted.
    """
    free = (
        sa.select(_mine.id)
        .where(_runs, _mine.lease_until.is_(None) | (_mine.lease_until < sa.func.now()))
        .where(~versions.HELD)
        .order_by(_mine.at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    claimed = (
        sa.update(bulk_action)
        .where(_mine.id == free, staff.c.id == _mine.staff_id)
        .values(lease_until=_in(LEASE_SECONDS))
        .returning(
            *(column for column in bulk_action.c),
            staff.c.name,
            staff.c.email,
            staff.c.roles,
            staff.c.language,
            staff.c.disabled_at,
        )
    )
    return (await tx.execute(claimed)).first()


async def add_done(tx: AsyncConnection, bulk_id: UUID, done: int, *, again_in: float) -> None:
    await tx.execute(
        sa.update(bulk_action)
        .where(_mine.id == bulk_id)
        .values(done=_mine.done + done, lease_until=_in(again_in))
    )


async def end(tx: AsyncConnection, bulk_id: UUID, state: str) -> sa.Row[Any] | None:
    """Return it; None: it has ended already."""
    ended = (
        sa.update(bulk_action)
        .where(_mine.id == bulk_id, _runs)
        .values(state=state, ended_at=sa.func.now())
        .returning(*bulk_action.c)
    )
    return (await tx.execute(ended)).first()


def _in(seconds: float) -> sa.ColumnElement[Any]:
    return sa.func.now() + sa.text(f"interval '{seconds} seconds'")
