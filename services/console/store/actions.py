"""The record of who did what. It is written by the transaction that acts."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.process import logs
from services.console.store.tables import staff_action


@dataclass(frozen=True, slots=True)
class Actor:
    kind: str
    """staff | key | env"""
    id: str
    name: str | None = None
    """With the admin key, who the caller claims to be."""
    roles: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}" + (f" {self.name}" if self.name else "")


async def record(
    tx: AsyncConnection,
    actor: Actor,
    action: str,
    kind: str,
    ref: str,
    *,
    reason: str | None = None,
    outcome: str = "done",
) -> None:
    """:param kind, ref: what was acted on; never an address"""
    await tx.execute(
        sa.insert(staff_action).values(
            id=uuid.uuid4(),
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_name=actor.name,
            roles=list(actor.roles),
            action=action,
            object_kind=kind,
            object_ref=ref,
            reason=reason,
            request_id=logs.request_id.get() or "",
            outcome=outcome,
        )
    )


async def listed(
    tx: AsyncConnection, before: datetime | None, most: int
) -> list[Mapping[str, Any]]:
    """Return acts, the latest first."""
    statement = sa.select(staff_action).order_by(staff_action.c.at.desc()).limit(most)
    if before is not None:
        statement = statement.where(staff_action.c.at < before)
    return [dict(each) for each in (await tx.execute(statement)).mappings()]


async def purge(tx: AsyncConnection, days: int) -> None:
    await tx.execute(sa.select(sa.func.staff_action_purge(days)))
