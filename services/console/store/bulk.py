"""Retries and discards of many alerts."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.console.store.sql import run
from services.console.store.tables import bulk_action

LEASE_SECONDS = 60
"""Longer than a call of the gateway takes."""


async def add(tx: AsyncConnection, values: Mapping[str, Any]) -> None:
    await tx.execute(sa.insert(bulk_action).values(**values))


async def find(tx: AsyncConnection, bulk_id: UUID) -> Any:
    """Return one, with the `name` of who began it."""
    return (await run(tx, "bulk", id=bulk_id)).one_or_none()


async def claim(tx: AsyncConnection) -> Any:
    """Take one that no process works on, until its lease is over, with who began it.

    Takes none while a restored database is not accepted.
    """
    return (await run(tx, "claim_bulk", seconds=LEASE_SECONDS)).one_or_none()


async def add_done(tx: AsyncConnection, bulk_id: UUID, done: int, *, again_in: float) -> None:
    await run(tx, "add_done", id=bulk_id, done=done, seconds=again_in)


async def end(tx: AsyncConnection, bulk_id: UUID, state: str) -> Any:
    """Return its `verb`, `expected` and `done`; None: it has ended already."""
    return (await run(tx, "end_bulk", id=bulk_id, state=state)).one_or_none()
