"""Counts the ready messages of queues, if known.

RabbitMQ also reports 0 messages and 0 consumers if a quorum queue's leader was silent for 250 ms:
for a minute after its node froze, or on one node under load. So a 0 counts only with a consumer.
Otherwise a message is fetched from the queue, which only the leader can do. That may block a
channel for half a minute and then cost the connection, so it uses a separate connection, which is
closed as soon as an answer is late.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection

from libs.common.messaging.session import close, connection_faults, open_channel

T = TypeVar("T")

KEPT_SECONDS = 1.0
LOOK_SECONDS = 1.0
PROOF_SECONDS = 4.0
CLOSE_SECONDS = 0.5
DISTRUST_SECONDS = 5.0

Depths = dict[str, int | None]
_NEVER = (float("-inf"), None)


class QueueDepths:
    """One query at a time; its result serves all callers within a second."""

    def __init__(self, connect: Callable[[], Awaitable[AbstractConnection]]) -> None:
        """:param connect: opens a connection that is expendable"""
        self._connect = connect
        self._connection: AbstractConnection | None = None
        self._lock = asyncio.Lock()
        self._seen: dict[str, tuple[float, int | None]] = {}
        self._trusted_from: dict[str, float] = {}

    async def at(self, queues: Collection[str]) -> Depths:
        clock = asyncio.get_running_loop().time
        old = clock() - KEPT_SECONDS  # before the wait: a query takes seconds
        async with self._lock:
            if any(self._seen.get(name, _NEVER)[0] < old for name in queues):
                begun = clock()
                found = await self._look({*queues, *self._seen})  # what others ask for as well
                self._seen = {name: (begun, depth) for name, depth in found.items()}
            return {name: self._seen[name][1] for name in queues}

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await close(connection, CLOSE_SECONDS)

    async def _look(self, queues: Collection[str]) -> Depths:
        clock = asyncio.get_running_loop().time
        before = clock() + LOOK_SECONDS + PROOF_SECONDS
        found = await self._answers(queues, _declared, LOOK_SECONDS, before)
        if unproven := [name for name in queues if found.get(name) is None]:
            proven = await self._answers(unproven, _taken, PROOF_SECONDS, before)
            now = clock()
            found |= {name: self._trusted(name, proven.get(name), now) for name in unproven}
        return found

    def _trusted(self, queue: str, depth: int | None, now: float) -> int | None:
        # A leader that was silent executes old requests when it is back: for a moment, an abandoned
        # query may hold its messages.
        if depth is None:
            self._trusted_from[queue] = float("inf")
        elif self._trusted_from.get(queue) == float("inf"):
            self._trusted_from[queue] = now + DISTRUST_SECONDS
        return depth if depth or now >= self._trusted_from.get(queue, now) else None

    async def _answers(
        self,
        queues: Collection[str],
        ask: Callable[[AbstractChannel, str], Awaitable[T]],
        seconds: float,
        before: float,
    ) -> dict[str, T]:
        """Query each queue on its own channel; leave out those without an answer in time.

        :param before: the deadline in the loop's time, which includes opening the connection
        """
        found: dict[str, T] = {}

        async def one(connection: AbstractConnection, name: str) -> None:
            channel = await open_channel(connection)
            found[name] = await ask(channel, name)
            await channel.close()

        try:
            with connection_faults():
                async with asyncio.timeout_at(before):
                    if self._connection is None or not self._connection.connected.is_set():
                        self._connection = await self._connect()
                    asking = [one(self._connection, name) for name in queues]
                    async with asyncio.timeout(seconds):
                        await asyncio.gather(*asking, return_exceptions=True)
        except Exception:  # noqa: BLE001 - on any error the depth is unknown
            await self.close()
        return found


async def _declared(channel: AbstractChannel, queue: str) -> int | None:
    try:
        found = (await channel.declare_queue(queue, passive=True)).declaration_result
    except aiormq.exceptions.ChannelNotFoundEntity:
        return 0
    return found.message_count if found.message_count or found.consumer_count else None


async def _taken(channel: AbstractChannel, queue: str) -> int:
    first = await (await channel.get_queue(queue, ensure=False)).get(fail=False)
    if first is None:
        return 0
    await first.nack(requeue=True)
    return 1 + (first.message_count or 0)
