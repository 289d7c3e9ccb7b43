"""Acknowledgements of one channel: those of one turn of the loop leave as one frame.

AMQP's `multiple` acknowledges a tag and all before it. So it may name a tag only when all before
it are settled, and what was rejected among them has been written. The tag itself must be waiting:
RabbitMQ closes the channel over one that is not. One writes at a time, for aiormq's queue of
frames is short, and who waits for a place in it may be overtaken.
"""

from aiormq.abc import AbstractChannel


class Acks:
    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._waiting: list[int] = []
        self._settled: set[int] = set()
        self._lowest = 1  # of those that are not settled; a channel's tags are 1, 2, 3, …
        self._writing = False

    def add(self, tag: int) -> bool:
        """Have `write` acknowledge it; True when it is the caller's to begin that."""
        self._waiting.append(tag)
        begin, self._writing = not self._writing, True
        return begin

    def settled(self, tag: int) -> None:
        """Take note that its rejection has been written."""
        self._settled.add(tag)

    async def write(self) -> None:
        try:
            while self._waiting:
                await self._write()
        finally:
            self._writing = False

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._settled.update(waiting)
        while self._lowest in self._settled:
            self._settled.remove(self._lowest)
            self._lowest += 1
        if together := [tag for tag in waiting if tag < self._lowest]:
            await self._channel.basic_ack(max(together), multiple=len(together) > 1, wait=False)
        for tag in waiting:
            if tag > self._lowest:
                await self._channel.basic_ack(tag, wait=False)
