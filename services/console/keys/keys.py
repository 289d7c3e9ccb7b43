"""Makes, rotates and revokes API keys, and waits until every gateway has the change.

A change is one transaction: the key, the next version and the record of the act. Killed before its
commit, it has not happened; killed after it, each gateway gets it with its next sync, and only the
answer is lost. A secret that was lost with its answer is harmless, as nobody knows it: the list
shows its key, and a second rotation or revocation ends it. So every call may be repeated.

A revocation misses no gateway. A process notes itself in `key_reader` and commits before it reads
the keys (sync.py); a revocation commits before it reads `key_reader`. So either the revocation sees
the process and waits for it, or the process reads the keys after the revocation.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.process import logs
from libs.domain.acts import Actor
from libs.domain.scopes import NOT_FOR_KEYS, READS_PERSONS, Scope
from services.console import metrics
from services.console.keys.sync import Sync
from services.console.people.notices import Notices
from services.console.rules import (
    MOST_KEYS,
    RefusedError,
    Role,
    Secret,
    Why,
    new_key_id,
    new_secret,
)
from services.console.store import actions, keys, people, sessions, versions
from services.console.store.sql import run
from services.console.store.versions import Reader, Version, change

log = logs.get_logger(__name__)

CONFIRM_SECONDS = 3.0
LOOK_SECONDS = 0.05
KIND = "api_key"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Which gateways have a change: all processes, unless some are still awaited."""

    in_force_on: int
    waiting_for: Sequence[Reader]


@dataclass(frozen=True, slots=True)
class Lacking:
    """What `accept_restore` will do, or did."""

    noticed_at: datetime
    revoked: Sequence[str]
    """Keys that the backup still had in force, and that were revoked, or rotated, since."""
    lost: int
    """Digests in force at the gateways, of keys made since then; these end."""
    people: Mapping[str, str]
    """Names by id of people who were changed or dismissed since then; these are blocked."""
    reported: bool
    """Whether a gateway has reported what it has; otherwise it is unknown what to take back."""


def grantable(roles: Collection[str]) -> list[Scope]:
    """Return what these roles may grant a key; scopes on personal data need the role privacy."""
    privacy = Role.PRIVACY in roles
    return [
        scope
        for scope in Scope
        if scope not in NOT_FOR_KEYS and (privacy or not scope.startswith("consent:"))
    ]


def _check(actor: Actor, scopes: Collection[str]) -> None:
    """Check that the person who gets the text of a key with these scopes may grant them."""
    if actor.kind == "staff" and not set(scopes) <= set(grantable(actor.roles)):
        raise RefusedError(*Why.NOT_YOURS)


class Keys:
    def __init__(self, engine: AsyncEngine, sync: Sync, notices: Notices) -> None:
        self._engine = engine
        self._sync = sync
        self._notices = notices

    async def create(self, actor: Actor, values: Mapping[str, Any]) -> tuple[Secret, Confirmation]:
        """:param values: the columns that the caller chooses"""
        _check(actor, values["scopes"])
        secret = new_secret(new_key_id())
        async with change(self._engine) as tx:
            if (await run(tx, "count_in_force")).scalar_one() >= MOST_KEYS:
                raise RefusedError(*Why.TOO_MANY_KEYS)
            version = await versions.advance(tx)
            await keys.add(tx, {**values, "id": secret.key_id, "created_by": str(actor)})
            await keys.add_digest(tx, secret, version.version)
            await actions.record(
                tx, actor, "key.create", KIND, secret.key_id, reason=values["purpose"]
            )
            await self._tell(tx, actor, secret.key_id, values["name"], values["scopes"])
        return secret, await self._confirmed("create", version)

    async def rotate(
        self, actor: Actor, key_id: str, overlap: timedelta, expires_at: datetime | None
    ) -> tuple[Secret, Confirmation]:
        """Add a second secret under the same id; the older ones end after the overlap."""
        secret = new_secret(key_id)
        now = datetime.now(UTC)
        async with change(self._engine) as tx:
            found = await keys.find(tx, key_id)
            if found is None:
                raise RefusedError(*Why.UNKNOWN_KEY)
            if found.revoked_at is not None or found.expires_at <= now:
                raise RefusedError(*Why.KEY_ENDED)
            _check(actor, found.scopes)
            version = await versions.advance(tx)
            await keys.end_digests(tx, key_id, now + overlap)
            await keys.add_digest(tx, secret, version.version)
            if expires_at is not None:
                await keys.change(tx, key_id, expires_at=expires_at)
            await actions.record(tx, actor, "key.rotate", KIND, key_id)
            await self._tell(tx, actor, key_id, found.name, found.scopes)
        return secret, await self._confirmed("rotate", version)

    async def revoke(self, actor: Actor, key_id: str, reason: str) -> Confirmation:
        """Revoke a key, whatever its scopes. If it is already revoked, only wait again."""
        async with change(self._engine) as tx:
            found = await keys.find(tx, key_id)
            if found is None:
                raise RefusedError(*Why.UNKNOWN_KEY)
            version = await versions.current(tx)
            if found.revoked_at is None:
                version = await versions.advance(tx)
                await keys.change(tx, key_id, revoked_at=sa.func.now())
                await actions.record(tx, actor, "key.revoke", KIND, key_id, reason=reason)
        return await self._confirmed("revoke", version)

    async def restored(self) -> Lacking | None:
        """Return what this database lacks; None if it was not restored from a backup."""
        async with self._engine.connect() as tx:
            found = await versions.open_restores(tx)
            if not found:
                return None
            revoked: set[str] = set()
            lost: set[bytes] = set()
            for each in found:
                if each.held is not None:
                    revoked.update(await keys.not_held(tx, each.version, each.held))
                    lost.update(each.held)
            return Lacking(
                noticed_at=found[0].noticed_at,
                revoked=sorted(revoked),
                lost=await keys.unknown_digests(tx, lost),
                people=await people.changed_since(tx, _standing(found)),
                reported=all(each.held is not None for each in found),
            )

    async def accept_restore(self, actor: Actor) -> tuple[Lacking, Confirmation]:
        """Revoke again what was revoked since the backup, and begin a new epoch.

        :raises RefusedError: there is nothing to accept
        """
        lacking = await self.restored()
        if lacking is None:
            raise RefusedError(*Why.NOT_RESTORED)
        async with self._engine.begin() as tx:
            await versions.lock(tx)
            found = await versions.open_restores(tx)
            for each in found:
                if each.held is not None:
                    await keys.end_not_held(tx, each.version, each.held)
            for staff_id in await people.changed_since(tx, _standing(found)):
                await people.block(tx, UUID(staff_id))
            await run(tx, "end_invitations")
            await sessions.end(tx)
            await run(tx, "accept_restores")
            version = await versions.advance(tx, new_epoch=True)
            await actions.record(tx, actor, "key.accept-restore", KIND, version.epoch)
        metrics.KEYS_BEHIND.set(0)
        return lacking, await self._confirmed("accept-restore", version)

    async def _tell(
        self, tx: AsyncConnection, actor: Actor, key_id: str, name: str, scopes: Collection[str]
    ) -> None:
        if reads := READS_PERSONS & set(scopes):
            detail = ", ".join(sorted(reads))
            await self._notices.tell(tx, actor, "key.power", key_id, name, kind=KIND, detail=detail)

    async def _confirmed(self, act: str, version: Version) -> Confirmation:
        """Wait until each gateway process has come back with this version, or a later one."""
        deadline = time.monotonic() + CONFIRM_SECONDS
        while True:
            async with self._engine.connect() as tx:
                found = await versions.readers(tx)
            waiting = [reader for reader, has in found if has < version.version]
            # Until it is settled, a process may be missing on the list.
            if time.monotonic() > deadline if waiting else self._sync.settled:
                break
            await asyncio.sleep(LOOK_SECONDS)
        metrics.KEY_CHANGES.labels(act, "waiting" if waiting else "in_force").inc()
        log.info("keys.changed", act=act, version=version.version, waiting=len(waiting))
        return Confirmation(len(found) - len(waiting), waiting)


def _standing(restores: Sequence[Any]) -> Mapping[str, str]:
    """Return what the gateway with the newest version knew about people."""
    newest = max(restores, key=lambda each: each.version, default=None)
    return (newest and newest.people) or {}
