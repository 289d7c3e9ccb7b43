"""Restored databases: how a restore is detected, and when the database is trusted again."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.store.sql import run
from services.consent.store.trail import Position


async def has(tx: AsyncConnection, position: Position) -> bool:
    """Return whether the trail has this position; clear the record of it if it is back."""
    found = (await run(tx, "has_position", **position._asdict())).one()
    if found.is_there and found.noticed:
        await run(tx, "position_is_back", **position._asdict())
    return bool(found.is_there)


async def is_current(tx: AsyncConnection, position: Position) -> bool:
    """Return whether the trail has this position and no other host misses one of its own."""
    return bool((await run(tx, "is_current", **position._asdict())).scalar())


async def record_missing(tx: AsyncConnection, position: Position) -> bool:
    """Record that this position is missing.

    :returns: whether withdrawals and erasures were replayed since
    """
    return bool((await run(tx, "record_missing", **position._asdict())).scalar_one())


async def without(
    tx: AsyncConnection, withdrawals: Sequence[tuple[UUID, str, datetime]]
) -> list[tuple[UUID, str, datetime]]:
    """Return those withdrawals (subject, purpose, time) that the database lacks."""
    lacking = await run(
        tx,
        "withdrawals_without",
        ids=[str(subject_id) for subject_id, _, _ in withdrawals],
        purposes=[purpose for _, purpose, _ in withdrawals],
        times=[at.isoformat() for _, _, at in withdrawals],
    )
    return [withdrawals[number - 1] for number in lacking.scalars()]
