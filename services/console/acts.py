"""Takes what other services did into the record; each act once, however often its message comes."""

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Delivery, Disposition, read
from libs.domain.acts import ACTION_RECORD
from services.console.messages import ActionRecord
from services.console.store import actions


class Acts:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def consume(self, message: Message, _: Delivery) -> Disposition:
        await self.take(read(message, ActionRecord, ACTION_RECORD))
        return Ack()

    async def take(self, act: ActionRecord) -> None:
        async with self._engine.begin() as tx:
            await actions.take(tx, act.model_dump())
