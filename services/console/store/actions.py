"""The record of who did what. It is written by the transaction that acts, here or elsewhere."""

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.domain.acts import DONE, Act, Actor
from services.console.store.sessions import Visitor
from services.console.store.tables import staff_action, staff_session


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
    table, session = staff_action.c, staff_session.c
    began = sa.select(session.created_at).where(session.token_sha256 == visitor.session)
    looks = sa.select(table.object_ref).where(
        table.actor_kind == "staff", table.actor_id == str(visitor.staff_id),
        table.at >= began.scalar_subquery(), table.action == action,
    )  # fmt: skip
    return {ref for refs in (await tx.execute(looks)).scalars() for ref in refs.split()}


async def take(tx: AsyncConnection, act: Mapping[str, Any]) -> None:
    """Add an act of another service, unless it is here."""
    await tx.execute(insert(staff_action).values(**act).on_conflict_do_nothing())


async def listed(
    tx: AsyncConnection, before: tuple[datetime, uuid.UUID] | None, most: int, *,
    actor: str = "", action: str = "", since: datetime | None = None, until: datetime | None = None,
) -> list[Mapping[str, Any]]:  # fmt: skip
    """Return acts, the latest first.

    :param before: time and id of the last one of the page before
    """
    table = staff_action.c
    statement = sa.select(staff_action)
    if before is not None:
        statement = statement.where(sa.tuple_(table.at, table.id) < sa.tuple_(*before))
    if actor:
        statement = statement.where(table.actor_id == actor)
    if action:
        statement = statement.where(table.action == action)
    if since is not None:
        statement = statement.where(table.at >= since)
    if until is not None:
        statement = statement.where(table.at < until)
    statement = statement.order_by(table.at.desc(), table.id.desc()).limit(most)
    return [dict(each) for each in (await tx.execute(statement)).mappings()]


async def about(tx: AsyncConnection, refs: Collection[str]) -> list[dict[str, Any]]:
    """Return what was done to any of these, the earliest first, without names or other refs."""
    table = staff_action.c
    shown = (
        table.at, table.actor_kind, table.actor_id, table.roles, table.action, table.object_kind,
        table.reason,
    )  # fmt: skip
    wanted = sa.cast([*refs], ARRAY(sa.Text))
    named = sa.func.string_to_array(table.object_ref, " ").op("&&")(wanted)
    found = await tx.execute(sa.select(*shown).where(named).order_by(table.at))
    return [{**row, "at": row["at"].isoformat()} for row in found.mappings()]


async def kinds(tx: AsyncConnection) -> list[str]:
    """Return the names of all acts in the record."""
    # By the index on them, from one to the next: the record may be long.
    found = await tx.execute(
        sa.text(
            "WITH RECURSIVE kind AS (SELECT min(action) AS action FROM staff_action UNION ALL "
            "SELECT (SELECT min(action) FROM staff_action WHERE action > kind.action) "
            "FROM kind WHERE action IS NOT NULL) "
            "SELECT action FROM kind WHERE action IS NOT NULL ORDER BY action"
        )
    )
    return list(found.scalars())


async def purge(tx: AsyncConnection, days: int) -> None:
    await tx.execute(sa.select(sa.func.staff_action_purge(days)))
