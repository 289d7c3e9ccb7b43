"""Invites people, logs them in, changes what they may do.

Each change is one transaction with its record. Killed before the commit, nothing has happened;
after it, only the answer is lost: a lost invitation is made again, and a session whose cookie was
lost opens nothing. A disabled person, and one whose roles changed, have no session from the commit
on.
"""

import asyncio
import secrets
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging.actions import Actor
from services.console import metrics
from services.console.oidc import Identity, OidcError
from services.console.passwords import Passwords, TooManyError
from services.console.person import INVITATION, STEP_UP, Role, Ways, login_wait
from services.console.store import actions, people, sessions
from services.console.store.sessions import Visitor

KIND = "staff"
MOST_WAITING = 50
"""Tries that wait after failures; each holds a connection of the gateway's."""


class UnknownPersonError(Exception):
    """no such person"""


class KnownPersonError(Exception):
    """this person is here already; make a new invitation for them instead"""


class LastAdminError(Exception):
    """this is the last admin who can log in; make another one first"""


class UsedInvitationError(Exception):
    """the link was used, or has ended"""


class StrangerError(OidcError):
    """this account is nobody's here, or another person's"""

    fault = "oidc_stranger"


class StaleError(OidcError):
    """the provider does not say that they have proved it just now"""

    fault = "oidc_stale"


class NoPasswordsError(Exception):
    """people log in at the identity provider only"""


def actor_of(visitor: Visitor) -> Actor:
    return Actor("staff", str(visitor.staff_id), visitor.name, visitor.roles)


class People:
    def __init__(self, engine: AsyncEngine, passwords: Passwords, ways: Ways) -> None:
        self._engine = engine
        self._passwords = passwords
        self._ways = ways
        self._waiting = 0

    async def listed(self) -> Sequence[sa.Row[Any]]:
        async with self._engine.connect() as tx:
            return await people.listed(tx, self._ways)

    async def invite(
        self, actor: Actor, email: str, name: str, roles: Sequence[Role], language: str
    ) -> tuple[UUID, str]:
        """Add a person, or take a disabled one back; return the id and the token of the link."""
        async with self._engine.begin() as tx:
            await people.lock(tx)
            found = await people.by_email(tx, email)
            values = {"name": name, "roles": list(roles), "language": language}
            if found is None:
                staff_id = uuid.uuid4()
                await people.add(tx, {"id": staff_id, "email": email, **values})
            elif found.disabled_at is not None:
                staff_id = found.id
                await people.change(tx, staff_id, disabled_at=None, **values)
            else:
                raise KnownPersonError
            token = await self._link(tx, staff_id)
            await actions.record(
                tx, actor, "staff.invite", KIND, str(staff_id), reason=", ".join(sorted(roles))
            )
        return staff_id, token

    async def invite_again(self, actor: Actor, staff_id: UUID) -> tuple[str, str]:
        """Return a person's address, and the token of a new link; the one before ends."""
        async with self._engine.begin() as tx:
            await people.lock(tx)
            found = await people.by_id(tx, staff_id)
            if found is None or found.disabled_at is not None:
                raise UnknownPersonError
            token = await self._link(tx, staff_id)
            await actions.record(tx, actor, "staff.invite", KIND, str(staff_id))
        return found.email, token

    async def set_roles(self, actor: Actor, staff_id: UUID, roles: Sequence[Role]) -> None:
        async with self._engine.begin() as tx:
            await people.lock(tx)
            found = await people.by_id(tx, staff_id)
            if found is None:
                raise UnknownPersonError
            if Role.ADMIN not in roles:
                await self._keep_an_admin(tx, staff_id, found.roles)
            await people.change(tx, staff_id, roles=list(roles))
            await sessions.end(tx, staff_id)
            await actions.record(
                tx, actor, "staff.roles", KIND, str(staff_id), reason=", ".join(sorted(roles))
            )

    async def disable(self, actor: Actor, staff_id: UUID, reason: str) -> None:
        async with self._engine.begin() as tx:
            await people.lock(tx)
            found = await people.by_id(tx, staff_id)
            if found is None:
                raise UnknownPersonError
            if found.disabled_at is not None:
                return
            await self._keep_an_admin(tx, staff_id, found.roles)
            await people.change(tx, staff_id, disabled_at=datetime.now(UTC))
            await sessions.end(tx, staff_id)
            await actions.record(tx, actor, "staff.disable", KIND, str(staff_id), reason=reason)

    async def accept(self, token: str, password: str, browser: str) -> str:
        """Set the password of an invited person; return the token of a session."""
        self._require_passwords()
        hashed = await self._passwords.hash(password)
        async with self._engine.begin() as tx:
            found = await people.invited(tx, token)
            if found is None or not await people.use_invitation(tx, token):
                raise UsedInvitationError
            await people.set_password(tx, found.id, hashed)
            await sessions.end(tx, found.id)  # whoever had the old password
            session = await self._begin(tx, found.id, browser)
            actor = Actor("staff", str(found.id), found.name, tuple(found.roles))
            await actions.record(tx, actor, "staff.join", KIND, str(found.id))
        return session

    async def log_in(self, email: str, password: str, browser: str) -> str | None:
        """Return the token of a session; None: no such account, or not its password.

        :raises TooManyError: too many try at once
        """
        self._require_passwords()
        async with self._engine.begin() as tx:
            failures = await people.count_try(tx, email)
        await self._wait(login_wait(failures))
        async with self._engine.connect() as tx:
            found = await people.by_email(tx, email)
            hashed = await people.password_hash(tx, found.id) if found else None
        right = await self._passwords.verify(hashed, password)
        if not right or found is None or hashed is None or found.disabled_at is not None:
            metrics.LOGINS.labels("refused").inc()
            return None
        fresh = await self._passwords.hash(password) if self._passwords.is_old(hashed) else None
        async with self._engine.begin() as tx:
            if not await people.still_opens(tx, found.id, hashed):  # an invitation came between
                metrics.LOGINS.labels("refused").inc()
                return None
            await people.forget_tries(tx, email)
            if fresh:
                await people.rehash(tx, found.id, fresh)
            session = await self._begin(tx, found.id, browser)
            actor = Actor("staff", str(found.id), found.name, tuple(found.roles))
            await actions.record(tx, actor, "session.begin", KIND, str(found.id))
        metrics.LOGINS.labels("done").inc()
        return session

    async def confirm(self, visitor: Visitor, password: str) -> bool:
        """Step up: the password once more, counted and slowed as a login is."""
        self._require_passwords()
        async with self._engine.begin() as tx:
            failures = await people.count_try(tx, visitor.email)
            hashed = await people.password_hash(tx, visitor.staff_id)
        await self._wait(login_wait(failures))
        if not await self._passwords.verify(hashed, password):
            return False
        async with self._engine.begin() as tx:
            await people.forget_tries(tx, visitor.email)
            await sessions.step_up(tx, visitor.session, None)
        return True

    async def log_in_as(self, identity: Identity, browser: str) -> str:
        """Return the token of a session.

        The first time, the address for which the provider vouches finds the invitation. Later the
        address counts for nothing: it may have become somebody else's.

        :raises StrangerError: nobody whom we know or have invited
        """
        action = "session.begin"
        async with self._engine.begin() as tx:
            found = await people.by_identity(tx, identity.issuer, identity.subject)
            if found is None and identity.email is not None:
                found = await people.use_invitation_of(tx, identity.email)
                if found is not None:
                    await people.set_identity(tx, found.id, identity.issuer, identity.subject)
                    await sessions.end(tx, found.id)  # whoever had what opened before
                    action = "staff.join"
            if found is None or found.disabled_at is not None:
                metrics.LOGINS.labels("refused").inc()
                raise StrangerError
            session = await self._begin(tx, found.id, browser, identity.proved_at)
            actor = Actor("staff", str(found.id), found.name, tuple(found.roles))
            await actions.record(tx, actor, action, KIND, str(found.id), reason="oidc")
        metrics.LOGINS.labels("done").inc()
        return session

    async def confirm_as(self, visitor: Visitor, identity: Identity) -> None:
        """Step up by the identity provider.

        :raises StrangerError, StaleError:
        """
        async with self._engine.begin() as tx:
            found = await people.by_identity(tx, identity.issuer, identity.subject)
            if found is None or found.id != visitor.staff_id:
                raise StrangerError
            if datetime.now(UTC) - identity.proved_at > STEP_UP:
                raise StaleError
            await sessions.step_up(tx, visitor.session, identity.proved_at)

    async def end_session(self, visitor: Visitor, session: bytes) -> None:
        async with self._engine.begin() as tx:
            await sessions.end(tx, visitor.staff_id, session)
            ref = str(visitor.staff_id)
            await actions.record(tx, actor_of(visitor), "session.end", KIND, ref)

    async def first_invitation(self, email: str) -> str | None:
        """Return the token of a link for the first admin; None if an admin can log in."""
        async with self._engine.connect() as tx:
            if await people.other_admins(tx, uuid.UUID(int=0), self._ways):
                return None
            found = await people.by_email(tx, email)
        actor = Actor("env", "make up")
        if found is not None and found.disabled_at is None:
            if Role.ADMIN not in found.roles:
                await self.set_roles(actor, found.id, [*found.roles, Role.ADMIN])
            return (await self.invite_again(actor, found.id))[1]
        return (await self.invite(actor, email, "Admin", [Role.ADMIN], "pl"))[1]

    async def _link(self, tx: AsyncConnection, staff_id: UUID) -> str:
        token = secrets.token_urlsafe(32)
        await people.add_invitation(tx, token, staff_id, datetime.now(UTC) + INVITATION)
        return token

    async def _begin(
        self, tx: AsyncConnection, staff_id: UUID, browser: str, proved_at: datetime | None = None
    ) -> str:
        token = secrets.token_urlsafe(32)
        await sessions.begin(tx, token, staff_id, browser, proved_at)
        return token

    def _require_passwords(self) -> None:
        if not self._ways.passwords:
            raise NoPasswordsError

    async def _keep_an_admin(
        self, tx: AsyncConnection, staff_id: UUID, roles: Sequence[str]
    ) -> None:
        if Role.ADMIN in roles and not await people.other_admins(tx, staff_id, self._ways):
            raise LastAdminError

    async def _wait(self, seconds: float) -> None:
        if not seconds:
            return
        if self._waiting >= MOST_WAITING:
            raise TooManyError
        self._waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waiting -= 1
