"""A handler that does as it is told and remembers what it got."""

import asyncio
from collections.abc import Callable

from aio_pika.exceptions import ChannelNotFoundEntity

from libs.common.messaging.broker import Broker, Message
from libs.common.messaging.consumer import Ack, Disposition


class Recorder:
    def __init__(self, *outcomes: Disposition | Exception) -> None:
        self._outcomes = list(outcomes)  # one a delivery; then Ack
        self.messages: list[Message] = []
        self.changed = asyncio.Event()

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]

    async def __call__(self, message: Message) -> Disposition:
        self.messages.append(message)
        self.changed.set()
        outcome = self._outcomes.pop(0) if self._outcomes else Ack()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_count(self, count: int, seconds: float = 30) -> None:
        await self.until(lambda: len(self.messages) >= count, seconds)


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for what sets no event."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.02)


async def connected(broker: Broker, seconds: float = 30) -> Broker:
    async with asyncio.timeout(seconds):
        await broker.session()
    return broker


async def depth(broker: Broker, queue: str) -> int | None:
    """Count at this moment what a running broker has ready; None when there is no such queue."""
    async with broker._temporary_channel() as channel:
        try:
            found = await channel.declare_queue(queue, passive=True)
        except ChannelNotFoundEntity:
            return None
        return found.declaration_result.message_count
