"""The record of who did what. It is written by the transaction that acts, here or elsewhere."""

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.domain.acts import DONE, Act, Actor
from services.console.store.sessions import Visitor
from services.console.store.sql import run
from services.console.store.tables import staff_action


async def record(
    tx: AsyncConnection, actor: Actor, action: str, kind: str, ref: str, *,
    reason: str | None = None, outcome: str = DONE,
) -> None:  # fmt: skip
    """:param kind, ref: what was acted on; never an address"""
    act = Act(actor, action, kind, ref, reason, outcome).message().body
    own = {"id": uuid.UUID(act["id"]), "at": sa.func.now()}
    await tx.execute(sa.insert(staff_action).values(**{**act, **own}))


async def looked_at(tx: AsyncConnection, visitor: Visitor, action: str) -> set[str]:
    """Return what a person has looked at since their session began."""
    actor, session = str(visitor.staff_id), visitor.session
    looks = await run(tx, "looked_at", actor=actor, action=action, session=session)
    return {ref for refs in looks.scalars() for ref in refs.split()}


async def take(tx: AsyncConnection, act: Mapping[str, Any]) -> None:
    """Add an act of another service, unless it is already here."""
    await tx.execute(insert(staff_action).values(**act).on_conflict_do_nothing())


async def listed(
    tx: AsyncConnection, before: tuple[datetime, uuid.UUID] | None, most: int, *,
    actor: str = "", action: str = "", since: datetime | None = None, until: datetime | None = None,
) -> list[Mapping[str, Any]]:  # fmt: skip
    """Return acts, the latest first.

    :param before: time and id of the last one of the page before
    """
    at, id_ = before or (None, None)
    chosen = {"actor": actor, "action": action, "since": since, "until": until}
    return [each._asdict() for each in await run(tx, "acts", at=at, id=id_, most=most, **chosen)]


async def about(tx: AsyncConnection, refs: Collection[str]) -> list[dict[str, Any]]:
    """Return what was done to any of these, the earliest first, without names or other refs."""
    found = await run(tx, "acts_about", refs=[*refs])
    return [{**row._asdict(), "at": row.at.isoformat()} for row in found]
