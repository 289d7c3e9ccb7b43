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
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.process.logs import log
from libs.domain.acts import Actor
from libs.domain.events import KEY_REVOKED, occurred
from libs.domain.scopes import NOT_FOR_KEYS, READS_PERSONS, Scope
from services.console import metrics, record
from services.console.keys.sync import Sync
from services.console.messages import WHY, RefusedError
from services.console.people.notices import Notices
from services.console.rules import MOST_KEYS, Role, Secret, new_key_id, new_secret
from services.console.store import people, sessions, versions
from services.console.store.sql import run
from services.console.store.versions import Version, change

CONFIRM_SECONDS = 3.0
LOOK_SECONDS = 0.05
KIND = "api_key"
AWAY = {"unseen": 600, "replaced": 30}
"""Seconds after which a gateway process that was not seen is assumed to serve nobody; the second
is of one with a successor of its name."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Which gateways have a change: all processes, unless some are still awaited."""

    in_force_on: int
    waiting_for: Sequence[Mapping[str, Any]]
    """`process` and `seen_at`."""


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
        raise RefusedError(**WHY["not_yours"])


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
                raise RefusedError(**WHY["too_many_keys"])
            version = await versions.advance(tx)
            await run(tx, "add_key", **values, id=secret.key_id, created_by=str(actor))
            await self._add_digest(tx, secret, version)
            await record.act(tx, actor, "key.create", KIND, secret.key_id, reason=values["purpose"])
            await self._tell(tx, actor, secret.key_id, values["name"], values["scopes"])
        return secret, await self._confirmed("create", version)

    async def rotate(
        self, actor: Actor, key_id: str, overlap: timedelta, expires_at: datetime | None
    ) -> tuple[Secret, Confirmation]:
        """Add a second secret under the same id; the older ones end after the overlap."""
        secret = new_secret(key_id)
        now = datetime.now(UTC)
        async with change(self._engine) as tx:
            found = (await run(tx, "find_key", key=key_id)).one_or_none()
            if found is None:
                raise RefusedError(**WHY["unknown_key"])
            if found.revoked_at is not None or found.expires_at <= now:
                raise RefusedError(**WHY["key_ended"])
            _check(actor, found.scopes)
            version = await versions.advance(tx)
            await run(tx, "end_digests", key=key_id, at=now + overlap)
            await self._add_digest(tx, secret, version)
            if expires_at is not None:
                await run(tx, "extend_key", key=key_id, at=expires_at)
            await record.act(tx, actor, "key.rotate", KIND, key_id)
            await self._tell(tx, actor, key_id, found.name, found.scopes)
        return secret, await self._confirmed("rotate", version)

    async def revoke(self, actor: Actor, key_id: str, reason: str) -> Confirmation:
        """Revoke a key, whatever its scopes. If it is already revoked, only wait again."""
        async with change(self._engine) as tx:
            found = (await run(tx, "find_key", key=key_id)).one_or_none()
            if found is None:
                raise RefusedError(**WHY["unknown_key"])
            version = await versions.current(tx)
            if found.revoked_at is None:
                version = await versions.advance(tx)
                await run(tx, "revoke_key", key=key_id)
                await outbox.add_all(tx, [occurred(KEY_REVOKED, uuid4(), key=key_id)])
                await record.act(tx, actor, "key.revoke", KIND, key_id, reason=reason)
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
                    has = {"version": each.version, "held": each.held}
                    revoked.update((await run(tx, "keys_not_held", **has)).scalars())
                    lost.update(each.held)
            known = (await run(tx, "known_digests", held=[*lost])).scalar_one()
            return Lacking(
                noticed_at=found[0].noticed_at,
                revoked=sorted(revoked),
                lost=len(lost) - known,
                people=await people.changed_since(tx, _standing(found)),
                reported=all(each.held is not None for each in found),
            )

    async def accept_restore(self, actor: Actor) -> tuple[Lacking, Confirmation]:
        """Revoke again what was revoked since the backup, and begin a new epoch.

        :raises RefusedError: there is nothing to accept
        """
        lacking = await self.restored()
        if lacking is None:
            raise RefusedError(**WHY["not_restored"])
        async with self._engine.begin() as tx:
            await versions.lock(tx)
            found = await versions.open_restores(tx)
            for each in found:
                if each.held is not None:
                    await run(tx, "end_not_held", version=each.version, held=each.held)
                    await run(tx, "revoke_ended")
            for staff_id in await people.changed_since(tx, _standing(found)):
                await people.block(tx, UUID(staff_id))
            await run(tx, "end_invitations")
            await sessions.end(tx)
            await run(tx, "accept_restores")
            version = await versions.advance(tx, new_epoch=True)
            await record.act(tx, actor, "key.accept-restore", KIND, version.epoch)
        metrics.KEYS_BEHIND.set(0)
        return lacking, await self._confirmed("accept-restore", version)

    async def _add_digest(self, tx: AsyncConnection, secret: Secret, since: Version) -> None:
        new = {"sha256": secret.sha256, "key": secret.key_id, "version": since.version}
        await run(tx, "add_digest", **new)

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
            found = await run.alone(self._engine, "readers", **AWAY, version=version.version)
            waiting = [
                {"process": each.process, "seen_at": each.seen_at} for each in found if not each.has
            ]
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
