"""Counts the ready messages of queues, if known.

RabbitMQ also reports 0 messages and 0 consumers if a quorum queue's leader was silent for 250 ms:
for a minute after its node froze, or on one node under load. So a 0 counts only with a consumer.
Otherwise a message is fetched from the queue, which only the leader can do. That may block a
channel for half a minute and then cost the connection, so it uses a separate connection.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import TypeVar

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection

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
        self._lock = asyncio.Lock()
        self._seen: dict[str, tuple[float, int | None]] = {}
        self._trusted_from: dict[str, float] = {}

    async def at(self, queues: Collection[str], connection: AbstractConnection) -> Depths:
        clock = asyncio.get_running_loop().time
        async with self._lock:
            old = clock() - KEPT_SECONDS
            asked = [name for name in queues if self._seen.get(name, _NEVER)[0] < old]
            found = await self._look(asked, connection)
            now = clock()
            self._seen |= {name: (now, found.get(name)) for name in asked}
            return {name: self._seen[name][1] for name in queues}

    async def _look(self, queues: Collection[str], connection: AbstractConnection) -> Depths:
        found = await _together(connection, queues, _declared, LOOK_SECONDS)
        if unproven := [name for name, depth in found.items() if depth is None]:
            proven = await self._prove(unproven)
            now = asyncio.get_running_loop().time()
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

    async def _prove(self, queues: Collection[str]) -> dict[str, int]:
        try:
            async with asyncio.timeout(PROOF_SECONDS):
                connection = await self._connect()
        except Exception:  # noqa: BLE001 - on any error the depth is unknown
            return {}
        try:
            return await _together(connection, queues, _taken, PROOF_SECONDS)
        finally:
            await _close(connection)


async def _together(
    connection: AbstractConnection,
    queues: Iterable[str],
    ask: Callable[[AbstractChannel, str], Awaitable[T]],
    seconds: float,
) -> dict[str, T]:
    """Query each queue on its own channel; leave out those without an answer in time."""
    found: dict[str, T] = {}

    async def one(name: str) -> None:
        channel = connection.channel(publisher_confirms=False)
        try:
            await channel.initialize()
            found[name] = await ask(channel, name)
        finally:
            await _close(channel)

    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*map(one, queues), return_exceptions=True)
    return found


async def _close(opened: AbstractChannel | AbstractConnection) -> None:
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await opened.close()


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
