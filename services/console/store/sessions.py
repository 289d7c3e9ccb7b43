"""Sessions: who is logged in, on which browser."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.domain.acts import Actor
from services.console.rules import POWERS, may
from services.console.store import versions
from services.console.store.people import OIDC, digest
from services.console.store.tables import staff, staff_credential, staff_session


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds after which a session ends."""

    idle: int
    most: int


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person who is logged in."""

    staff_id: UUID
    email: str
    name: str
    roles: tuple[str, ...]
    language: str
    session: bytes
    stepped_up_at: datetime
    factor: bool = False
    """Whether they have a second one."""
    by_password: bool = True
    """Not with the company account, which has its own rules; a change of this ends sessions."""

    @property
    def actor(self) -> Actor:
        return Actor("staff", str(self.staff_id), self.name, self.roles)

    @property
    def asks_factor(self) -> bool:
        return self.by_password and may(self.roles, *POWERS)


def _open(ages: Ages) -> sa.ColumnElement[bool]:
    table, now = staff_session.c, sa.func.now()
    return (
        table.ended_at.is_(None)
        & (table.seen_at > now - sa.text(f"interval '{ages.idle} seconds'"))
        & (table.created_at > now - sa.text(f"interval '{ages.most} seconds'"))
    )


async def begin(
    tx: AsyncConnection, staff_id: UUID, browser: str, proved_at: datetime | None = None
) -> str:
    """Return the token of a new session.

    :param proved_at: when the person proved who they are; None: just now
    """
    token = secrets.token_urlsafe(32)
    await tx.execute(
        sa.insert(staff_session).values(
            token_sha256=digest(token),
            staff_id=staff_id,
            browser=browser,
            stepped_up_at=proved_at or sa.func.now(),
        )
    )
    return token


async def visitor(tx: AsyncConnection, token: str, ages: Ages, *, active: bool) -> Visitor | None:
    """Return who has this session; nobody, while a restored database is not accepted.

    :param active: count this as activity from the next call on
    """
    table, credential = staff_session.c, staff_credential.c
    by_oidc = sa.exists().where(credential.staff_id == staff.c.id, credential.kind == OIDC)
    found = (
        await tx.execute(
            sa.select(staff, table.token_sha256, table.stepped_up_at, (~by_oidc).label("password"))
            .join(staff_session)
            .where(table.token_sha256 == digest(token), _open(ages), staff.c.disabled_at.is_(None))
            .where(~versions.HELD)
        )
    ).first()
    if found is None:
        return None
    if active:
        await tx.execute(  # a write a minute, not one for each request
            sa.update(staff_session)
            .where(table.token_sha256 == found.token_sha256)
            .where(table.seen_at < sa.func.now() - sa.text("interval '1 minute'"))
            .values(seen_at=sa.func.now())
        )
    return Visitor(
        found.id,
        found.email,
        found.name,
        tuple(found.roles),
        found.language,
        bytes(found.token_sha256),
        found.stepped_up_at,
        found.factor is not None,
        found.password,
    )


async def step_up(tx: AsyncConnection, session: bytes, proved_at: datetime | None = None) -> str:
    """Return a new token of the session: whoever else had the old one has proved nothing."""
    token = secrets.token_urlsafe(32)
    await tx.execute(
        sa.update(staff_session)
        .where(staff_session.c.token_sha256 == session)
        .values(token_sha256=digest(token), stepped_up_at=proved_at or sa.func.now())
    )
    return token


async def of(tx: AsyncConnection, staff_id: UUID, ages: Ages) -> Sequence[sa.Row[Any]]:
    found = await tx.execute(
        sa.select(staff_session)
        .where(staff_session.c.staff_id == staff_id, _open(ages))
        .order_by(staff_session.c.seen_at.desc())
    )
    return found.all()


async def end(
    tx: AsyncConnection, staff_id: UUID | None = None, session: bytes | None = None
) -> None:
    """End one session of a person, all of them, or everybody's."""
    statement = sa.update(staff_session).where(staff_session.c.ended_at.is_(None))
    if staff_id is not None:
        statement = statement.where(staff_session.c.staff_id == staff_id)
    if session is not None:
        statement = statement.where(staff_session.c.token_sha256 == session)
    await tx.execute(statement.values(ended_at=sa.func.now()))


async def purge(tx: AsyncConnection, days: int) -> None:
    old = sa.func.now() - sa.text(f"interval '{days} days'")
    await tx.execute(sa.delete(staff_session).where(staff_session.c.seen_at < old))
