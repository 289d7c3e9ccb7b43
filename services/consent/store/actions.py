"""The record of calls with the admin key."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.store.tables import admin_action


async def record(tx: AsyncConnection, values: Mapping[str, Any]) -> None:
    """Add a row, unless it was recorded before (redelivered, or sent over both routes)."""
    await tx.execute(insert(admin_action).values(**values).on_conflict_do_nothing())


async def purge(tx: AsyncConnection, days: int) -> None:
    await tx.execute(sa.select(sa.func.admin_action_purge(days)))
