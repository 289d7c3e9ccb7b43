"""Invites people, changes their roles, and disables them.

Each change is one transaction with its record, its mails and a version (sync.py), by which gateways
know what a restored database lacks. A kill before the commit undoes everything; after it, only
the answer is lost. Roles and blocked people count from the next request.
"""

import secrets
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.domain.acts import Actor
from services.console import record
from services.console.messages import WHY, RefusedError
from services.console.people.notices import Notices, name_of
from services.console.rules import INVITATION, READERS, Role, Ways
from services.console.store import people, sessions
from services.console.store.sql import run
from services.console.store.versions import KeysRestoredError, change, people_change

KIND = "staff"


async def erase_disabled(engine: AsyncEngine) -> None:
    """Erase people who have been disabled for a year, unless someone takes them back.

    A restored database is accepted first: until then it does not know who is disabled.
    """
    with suppress(KeysRestoredError):
        async with change(engine) as tx:
            await run(tx, "erase_people")


class People:
    def __init__(self, engine: AsyncEngine, ways: Ways, notices: Notices) -> None:
        self._engine = engine
        self._ways = ways
        self._notices = notices

    async def listed(self) -> Sequence[Any]:
        return await run.alone(self._engine, "everybody", **self._ways.opens)

    async def invite(
        self, actor: Actor, email: str, name: str, roles: Sequence[Role], language: str, *,
        show: bool = False,
    ) -> tuple[UUID, str | None]:  # fmt: skip
        """Add a person, or take a disabled one back, and mail them a link.

        :returns: the id; the link, if it is shown instead
        """
        async with people_change(self._engine) as tx:
            found = await people.find(tx, email=email)
            values = {"name": name, "roles": list(roles), "language": language}
            if found is None:
                staff_id = uuid.uuid4()
                await run(tx, "add_person", id=staff_id, email=email, **values)
            elif found.disabled_at is not None:
                staff_id = found.id
                await run(tx, "take_back", id=staff_id, **values)
            else:
                raise RefusedError(**WHY["known_person"])
            reason = ", ".join(sorted(roles))
            await record.act(tx, actor, "staff.invite", KIND, str(staff_id), reason=reason)
            person = await self._person(tx, staff_id)
            link = await self._link(tx, actor, person, "invited", show=show)
            await self._tell_powers(tx, actor, person, set(roles))
        return staff_id, link

    async def invite_again(
        self, actor: Actor, staff_id: UUID, *, show: bool = False
    ) -> tuple[str, str | None]:
        """Mail a person a new link; the one before ends, and their login once it is used.

        :returns: the address; the link, if it is shown instead
        """
        async with people_change(self._engine) as tx:
            person = await self._person(tx, staff_id)
            if person.disabled_at is not None:
                raise RefusedError(**WHY["unknown_person"])
            link = await self._link(tx, actor, person, "link", show=show)
            if link is None:
                await self._notices.tell(tx, actor, "staff.link", str(staff_id), person.name)
        return person.email, link

    async def set_roles(self, actor: Actor, staff_id: UUID, roles: Sequence[Role]) -> None:
        async with people_change(self._engine) as tx:
            found = await self._person(tx, staff_id)
            if Role.ADMIN not in roles:
                await self._keep_an_admin(tx, staff_id, found.roles)
            await run(tx, "set_roles", id=staff_id, roles=list(roles))
            reason = ", ".join(sorted(roles))
            await record.act(tx, actor, "staff.roles", KIND, str(staff_id), reason=reason)
            await self._tell_powers(tx, actor, found, set(roles) - set(found.roles))

    async def disable(self, actor: Actor, staff_id: UUID, reason: str) -> None:
        async with people_change(self._engine) as tx:
            found = await self._person(tx, staff_id)
            if found.disabled_at is not None:
                return
            await self._keep_an_admin(tx, staff_id, found.roles)
            await people.block(tx, staff_id)
            await sessions.end(tx, staff_id)
            await record.act(tx, actor, "staff.disable", KIND, str(staff_id), reason=reason)

    async def reset_factor(self, actor: Actor, staff_id: UUID) -> None:
        """Remove a second factor that its owner has lost; notify the owner and every admin."""
        async with people_change(self._engine) as tx:
            found = await self._person(tx, staff_id)
            await people.set_factor(tx, staff_id, None)
            ref = str(staff_id)
            await self._notices.tell(tx, actor, "staff.factor-reset", ref, found.name, also=found)

    async def first_invitation(self, email: str) -> str | None:
        """Return a link for the first admin, who has every role; None if an admin can log in."""
        async with self._engine.connect() as tx:
            if await self._other_admins(tx, uuid.UUID(int=0)):
                return None
            found = await people.find(tx, email=email)
        actor = Actor("env", "make up")
        if found is not None and found.disabled_at is None:
            if Role.ADMIN not in found.roles:
                await self.set_roles(actor, found.id, [*found.roles, Role.ADMIN])
            return (await self.invite_again(actor, found.id, show=True))[1]
        return (await self.invite(actor, email, "Admin", list(Role), "pl", show=True))[1]

    async def _person(self, tx: AsyncConnection, staff_id: UUID) -> Any:
        if (found := await people.find(tx, id=staff_id)) is None or found.email == str(staff_id):
            raise RefusedError(**WHY["unknown_person"])  # nobody, or erased
        return found

    async def _link(
        self, tx: AsyncConnection, actor: Actor, person: Any, text: str, *, show: bool
    ) -> str | None:
        """Make a link that lets a person in, and mail it; if it is shown instead, notify admins."""
        if show and actor.kind != "env":
            raise RefusedError(**WHY["shown"])
        token = secrets.token_urlsafe(32)
        until = datetime.now(UTC) + INVITATION
        await run(tx, "add_invitation", token=people.digest(token), id=person.id, at=until)
        link = self._notices.link(token)
        if not show:
            await self._notices.mail(tx, person, text, link=link, who=name_of(actor))
            return None
        also = person if person.proof_at else None
        ref = str(person.id)
        await self._notices.tell(tx, actor, "staff.link-shown", ref, person.name, also=also)
        return link

    async def _tell_powers(
        self, tx: AsyncConnection, actor: Actor, person: Any, gained: set[Role]
    ) -> None:
        """Notify every admin of a person who may now see personal data, or let others do so."""
        if gained := gained & READERS:
            ref, detail = str(person.id), ", ".join(sorted(gained))
            await self._notices.tell(tx, actor, "staff.power", ref, person.name, detail=detail)

    async def _keep_an_admin(
        self, tx: AsyncConnection, staff_id: UUID, roles: Sequence[str]
    ) -> None:
        if Role.ADMIN in roles and not await self._other_admins(tx, staff_id):
            raise RefusedError(**WHY["last_admin"])

    async def _other_admins(self, tx: AsyncConnection, staff_id: UUID) -> bool:
        return bool((await run(tx, "other_admins", id=staff_id, **self._ways.opens)).scalar())
