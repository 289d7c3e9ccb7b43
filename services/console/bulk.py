"""Retries or discards the alerts that a list showed, as the person who typed their number.

The gateway's call acts on what it can in some seconds and says whether there is more; a worker
repeats it until there is none, or as many as were announced are done. After a kill at any step,
another replica continues once the lease is over: a call answered but not counted is repeated, finds
less to do, and `done` then says too little, never too much. Two workers on one are harmless for the
same reason. `as_of` in the filter keeps all of them from what was not shown.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.process.logs import log
from libs.domain.acts import Actor
from services.console import record
from services.console.gateway import Gateway
from services.console.rules import Role
from services.console.store.sessions import Visitor
from services.console.store.sql import run

LEASE_SECONDS = 60
"""Longer than a call of the gateway takes."""
IDLE_SECONDS = 1.0
AGAIN_SECONDS = 5.0
KIND = "bulk"
COUNTS = {"retry": "requeued", "discard": "discarded"}
_AWAY = {"away", "unsure"}


async def add_done(tx: AsyncConnection, bulk_id: UUID, done: int, *, again_in: float) -> None:
    await run(tx, "add_done", id=bulk_id, done=done, seconds=again_in)


class Bulk:
    def __init__(self, engine: AsyncEngine, gateway: Gateway) -> None:
        self._engine = engine
        self._gateway = gateway

    async def begin(
        self, visitor: Visitor, verb: str, chosen: Mapping[str, str], reason: str, expected: int
    ) -> UUID:
        bulk_id = uuid.uuid4()
        async with self._engine.begin() as tx:
            await run(
                tx, "add_bulk", id=bulk_id, staff=visitor.staff_id, verb=verb, filter=dict(chosen),
                reason=reason, expected=expected,
            )  # fmt: skip
            await record.act(
                tx, visitor.actor, f"bulk.{verb}", KIND, str(bulk_id),
                reason=reason, outcome="intended",
            )  # fmt: skip
        return bulk_id

    async def stop(self, visitor: Visitor, bulk_id: UUID) -> None:
        async with self._engine.begin() as tx:
            if await run(tx, "end_bulk", id=bulk_id, state="stopped"):
                await record.act(tx, visitor.actor, "bulk.stop", KIND, str(bulk_id))

    async def run(self) -> None:
        while await self._step():
            pass

    async def _step(self) -> bool:
        """Make one call for one of them; False if there is nothing to do."""
        found = (await run.alone(self._engine, "claim_bulk", seconds=LEASE_SECONDS)).one_or_none()
        if found is None:
            return False
        actor = Actor("staff", str(found.staff_id), found.name, tuple(found.roles))
        if found.disabled_at is not None or Role.OPS not in found.roles:
            await self._end(found.id, "refused", 0, actor)
            return True
        # As they are now, not as they were: a person who lost the role no longer acts.
        visitor = Visitor(
            found.staff_id, found.email, found.name, actor.roles, found.language,
            b"", datetime.now(UTC),
        )  # fmt: skip
        body = found.filter | ({"reason": found.reason} if found.verb == "discard" else {})
        answer = await self._gateway.post(visitor, f"/api/dlq/{found.verb}", body)
        if answer.ok and answer.body:
            done = answer.body[COUNTS[found.verb]]
            if not answer.body.get("more") or found.done + done >= found.expected:
                await self._end(found.id, "done", done, actor)
                return True
            async with self._engine.begin() as tx:
                await add_done(tx, found.id, done, again_in=0)
        elif answer.ok or answer.fault in _AWAY:
            async with self._engine.begin() as tx:
                await add_done(tx, found.id, 0, again_in=AGAIN_SECONDS)
        else:
            log.error("bulk.refused", id=str(found.id), status=answer.status)
            await self._end(found.id, "refused", 0, actor)
        return True

    async def _end(self, bulk_id: UUID, state: str, done: int, actor: Actor) -> None:
        async with self._engine.begin() as tx:
            await add_done(tx, bulk_id, done, again_in=0)
            # No row: it was stopped by now.
            for ended in await run(tx, "end_bulk", id=bulk_id, state=state):
                await record.act(
                    tx, actor, f"bulk.{ended.verb}", KIND, str(bulk_id),
                    reason=f"{ended.done} of {ended.expected}", outcome=state,
                )  # fmt: skip
