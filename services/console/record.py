"""The record: stores what other services did, and each look at personal data before it is shown.

An act is stored once, however often its message comes (promise C5).
"""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Disposition, read
from libs.domain.acts import ACTION_RECORD
from services.console.messages import ActionRecord
from services.console.store import actions
from services.console.store.sessions import Visitor


class Acts:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def consume(self, message: Message) -> Disposition:
        await self.take(read(message, ActionRecord, ACTION_RECORD))
        return Ack()

    async def take(self, act: ActionRecord) -> None:
        async with self._engine.begin() as tx:
            await actions.take(tx, act.model_dump())


class Looks:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def of(self, refs: Collection[str]) -> list[dict[str, Any]]:
        """Return all acts on these, including looks at them."""
        async with self._engine.connect() as tx:
            return await actions.about(tx, refs)

    async def record(
        self, visitor: Visitor, action: str, kind: str, refs: Iterable[str], *, again: bool = False
    ) -> None:
        """Return once it is durable; if this fails, nothing must be shown.

        :param refs: ids, never an address
        :param again: by a page that refreshes itself: record only what its session has not seen yet
        """
        async with self._engine.begin() as tx:
            seen = await actions.looked_at(tx, visitor, action) if again else set()
            if ref := " ".join(each for each in refs if each not in seen):
                await actions.record(tx, visitor.actor, action, kind, ref)
