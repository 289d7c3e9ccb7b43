"""Acknowledgements of one channel; those of one event-loop iteration share a frame if they can.

AMQP's `multiple` acknowledges a tag and all before it. So a tag may be sent only when all before it
are finished and their rejections written. The tag itself must be unacknowledged, or RabbitMQ closes
the channel. Only one task writes at a time: aiormq's frame queue is short, and a task that waits
for space in it may be overtaken.
"""

from aiormq.abc import AbstractChannel


class Acks:
    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._waiting: list[int] = []
        self._finished: set[int] = set()
        self._lowest = 1  # lowest unfinished tag; a channel's tags are 1, 2, 3, …
        self._writing = False

    def add(self, tag: int) -> bool:
        """Queue a tag for `write`; return True if the caller must start it."""
        self._waiting.append(tag)
        begin, self._writing = not self._writing, True
        return begin

    def rejected(self, tag: int) -> None:
        """Record that the rejection of a tag was written."""
        self._finished.add(tag)

    async def write(self) -> None:
        try:
            while self._waiting:
                await self._write()
        finally:
            self._writing = False

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._finished.update(waiting)
        while self._lowest in self._finished:
            self._finished.remove(self._lowest)
            self._lowest += 1
        if together := [tag for tag in waiting if tag < self._lowest]:
            await self._channel.basic_ack(max(together), multiple=len(together) > 1, wait=False)
        for tag in waiting:
            if tag > self._lowest:
                await self._channel.basic_ack(tag, wait=False)
