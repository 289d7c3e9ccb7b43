"""The record: stores what other services did, and each look at personal data before it is shown.

An act is stored once, however often its message comes (promise C5).
"""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Disposition, read
from libs.domain.acts import ACTION_RECORD, DONE, Act, Actor
from services.console.messages import ActionRecord
from services.console.store.sessions import Visitor
from services.console.store.sql import run


async def act(
    tx: AsyncConnection, actor: Actor, action: str, kind: str, ref: str, *,
    reason: str | None = None, outcome: str = DONE,
) -> None:  # fmt: skip
    """Record an act in the transaction that does it.

    :param kind, ref: what was acted on; never an address
    """
    body = Act(actor, action, kind, ref, reason, outcome).message().body
    await run(tx, "add_act", **{**body, "at": None})


class Acts:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def consume(self, message: Message) -> Disposition:
        await self.take(read(message, ActionRecord, ACTION_RECORD))
        return Ack()

    async def take(self, act: ActionRecord) -> None:
        await run.alone(self._engine, "add_act", **act.model_dump())


class Looks:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def of(self, refs: Collection[str]) -> list[dict[str, Any]]:
        """Return all acts on these, including looks at them."""
        found = await run.alone(self._engine, "acts_about", refs=[*refs])
        return [row._asdict() for row in found]

    async def record(
        self, visitor: Visitor, action: str, kind: str, refs: Iterable[str], *, again: bool = False
    ) -> None:
        """Return once it is durable; if this fails, nothing must be shown.

        :param refs: ids, never an address
        :param again: by a page that refreshes itself: record only what its session has not seen yet
        """
        async with self._engine.begin() as tx:
            seen: set[str] = set()
            if again:
                by = {"actor": str(visitor.staff_id), "session": visitor.session}
                looks = (await run(tx, "looked_at", **by, action=action)).scalars()
                seen.update(" ".join(looks).split())
            if ref := " ".join(each for each in refs if each not in seen):
                await act(tx, visitor.actor, action, kind, ref)
