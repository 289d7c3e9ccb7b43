"""Sessions: who is logged in, on which browser."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.domain.acts import Actor
from services.console.rules import POWERS, may
from services.console.store.people import digest
from services.console.store.sql import run

Ages = Mapping[str, int]
"""Seconds after which a session ends: `idle`, and `most` of all."""


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
    """False with the company account, which has its own rules; a change of this ends sessions."""

    @property
    def actor(self) -> Actor:
        return Actor("staff", str(self.staff_id), self.name, self.roles)

    @property
    def asks_factor(self) -> bool:
        return self.by_password and may(self.roles, *POWERS)


async def begin(
    tx: AsyncConnection, staff_id: UUID, browser: str, proved_at: datetime | None = None
) -> str:
    """Return the token of a new session.

    :param proved_at: when the person proved who they are; None: just now
    """
    token = secrets.token_urlsafe(32)
    new = {"token": digest(token), "id": staff_id, "browser": browser}
    await run(tx, "begin_session", **new, at=proved_at)
    return token


async def visitor(tx: AsyncConnection, token: str, ages: Ages, *, active: bool) -> Visitor | None:
    """Return the owner of this session; nobody while a restored database is not accepted.

    :param active: count this as activity from the next call on
    """
    found = (await run(tx, "visitor", token=digest(token), **ages)).one_or_none()
    if found is None:
        return None
    if active:
        await run(tx, "seen", token=digest(token))
    id_, email, name, roles, *rest = found
    return Visitor(id_, email, name, tuple(roles), *rest)


async def step_up(tx: AsyncConnection, session: bytes, proved_at: datetime | None = None) -> str:
    """Return a new token of the session: another holder of the old one has proved nothing."""
    token = secrets.token_urlsafe(32)
    await run(tx, "step_up", token=digest(token), session=session, at=proved_at)
    return token


async def end(
    tx: AsyncConnection, staff_id: UUID | None = None, session: bytes | None = None
) -> None:
    """End one session of a person, all of them, or everybody's."""
    await run(tx, "end_sessions", id=staff_id, session=session)
