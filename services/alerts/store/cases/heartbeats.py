"""Jobs and event types that are missed when none comes in time, and the pings of jobs.

A row is locked before any case. Its lock orders a ping, a sign and the timer (protocol D).
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.messages import HeartbeatPing
from services.alerts.store.tables import heartbeat_ping, heartbeat_watch

PINGS_KEPT: Final = 100
"""Of each heartbeat, at most."""

_mine = heartbeat_watch.c
_pings = heartbeat_ping.c
_Where = sa.ColumnElement[bool]


async def configure(tx: AsyncConnection, deadlines: Mapping[str, datetime]) -> None:
    """Start watching event types that are new, and forget those that are not watched any more."""
    ours = _mine.event_type.is_not(None)
    await tx.execute(
        sa.delete(heartbeat_watch).where(ours, _mine.event_type.not_in(list(deadlines)))
    )
    if deadlines:
        rows = [
            {"name": name, "event_type": name, "next_at": at}
            for name, at in sorted(deadlines.items())
        ]
        await tx.execute(insert(heartbeat_watch).values(rows).on_conflict_do_nothing())


async def lock(tx: AsyncConnection, where: _Where, *, skip: bool = False) -> list[Any]:
    chosen = sa.select(heartbeat_watch).where(where).order_by(_mine.id)
    return list(await tx.execute(chosen.with_for_update(skip_locked=skip)))


async def lock_one(tx: AsyncConnection, heartbeat_id: UUID) -> Any | None:
    return next(iter(await lock(tx, _mine.id == heartbeat_id)), None)


async def lock_events(tx: AsyncConnection, event_types: Collection[str]) -> list[Any]:
    return await lock(tx, _mine.event_type.in_(event_types))


def _over(event_types: Collection[str], before: datetime) -> _Where:
    known = _mine.event_type.is_(None) | _mine.event_type.in_(event_types)
    return sa.and_(known, _mine.case_id.is_(None), _mine.next_at <= before)


async def any_over(tx: AsyncConnection, event_types: Collection[str], before: datetime) -> bool:
    found = sa.exists().where(_over(event_types, before))
    return bool((await tx.execute(sa.select(found))).scalar_one())


async def over(tx: AsyncConnection, event_types: Collection[str], before: datetime) -> list[Any]:
    """Lock those whose deadline was over by then and that have no case, skipping locked ones."""
    return await lock(tx, _over(event_types, before), skip=True)


async def change(tx: AsyncConnection, heartbeat_id: UUID, values: Mapping[str, Any]) -> None:
    await tx.execute(sa.update(heartbeat_watch).where(_mine.id == heartbeat_id).values(values))


async def log(tx: AsyncConnection, ping: HeartbeatPing) -> bool:
    """Keep a ping of a locked heartbeat, and as many before it; False: it is kept already."""
    values = {**ping.model_dump(exclude={"url_version"}), "kind": str(ping.kind)}
    added = await tx.execute(insert(heartbeat_ping).values(values).on_conflict_do_nothing())
    if not added.rowcount:
        return False
    mine = _pings.heartbeat == ping.heartbeat
    newest = sa.select(_pings.id).where(mine).order_by(_pings.at.desc(), _pings.id)
    old = _pings.id.in_(newest.offset(PINGS_KEPT))
    await tx.execute(sa.delete(heartbeat_ping).where(old))
    return True


async def listed(tx: AsyncConnection) -> Sequence[Any]:
    return (await tx.execute(sa.select(heartbeat_watch).order_by(_mine.name, _mine.id))).all()


async def find(tx: AsyncConnection, heartbeat_id: UUID, pings: int) -> tuple[Any, Sequence[Any]]:
    """Return a heartbeat, or None, and its last pings, the newest first."""
    row = (await tx.execute(sa.select(heartbeat_watch).where(_mine.id == heartbeat_id))).first()
    mine = sa.select(heartbeat_ping).where(_pings.heartbeat == heartbeat_id)
    return row, (await tx.execute(mine.order_by(_pings.at.desc()).limit(pings))).all()


async def add(tx: AsyncConnection, values: Mapping[str, Any], most: int) -> Any | None:
    """Return the new row; None: there are `most` already. Two at once may be one more."""
    count = await tx.execute(sa.select(sa.func.count()).select_from(heartbeat_watch))
    if count.scalar_one() >= most:
        return None
    return (
        await tx.execute(sa.insert(heartbeat_watch).values(values).returning(heartbeat_watch))
    ).one()


async def remove(tx: AsyncConnection, heartbeat_id: UUID) -> None:
    await tx.execute(sa.delete(heartbeat_watch).where(_mine.id == heartbeat_id))


async def purge(tx: AsyncConnection, seconds: float) -> None:
    """Delete the pings that are this old."""
    age = sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    await tx.execute(sa.delete(heartbeat_ping).where(_pings.at < sa.func.now() - age))
