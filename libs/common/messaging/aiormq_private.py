"""What of aiormq 7.2 is private and used.

tests/unit/common/test_private_names.py fails if a new version moves one of the names.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import ChannelFrame
from pamqp import frame
from pamqp.header import ContentHeader

BLOCKED = "_Connection__handle_connection_blocked"
UNBLOCKED = "_Connection__handle_connection_unblocked"
CLOSE_CHANNEL = "_Channel__close_after_failure"

# aio-pika 10.2 registers each channel on its connection's `closing` and removes it when the channel
# is closed. aiormq 7.2 returns a new future at each access, all of which the connection keeps:
# every channel ever opened would stay in memory (a test counts them).
setattr(aiormq.Connection, "closing", property(lambda connection: connection._closing))  # noqa: B010, SLF001

# RabbitMQ closes the connection of a client that closes a channel twice. aiormq 7.2 sends a second
# Channel.Close if whoever waits for the first gives up, also by its own time-out of a heartbeat,
# and if a call is cancelled while its refusal is read. So the first is waited for to its end, in
# a task that nobody cancels and that the connection's end ends.
_rpc: Callable[..., Awaitable[Any]] = aiormq.Channel.rpc
_close_channel: Callable[..., Awaitable[None]] = getattr(aiormq.Channel, CLOSE_CHANNEL)


async def _call(channel: Any, sent: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109
    if isinstance(sent, aiormq.spec.Channel.Close):
        return await asyncio.shield(_closed(channel, sent))
    return await _rpc(channel, sent, timeout)


async def _closed(channel: Any, sent: Any) -> None:
    with suppress(Exception):  # nobody may be left to see that it is closed
        await _rpc(channel, sent)


async def _close_once(channel: Any, sent: Any) -> None:
    if channel._close_exception is None:  # noqa: SLF001 - RabbitMQ has not closed it
        await _close_channel(channel, sent)


setattr(aiormq.Channel, "rpc", _call)  # noqa: B010
setattr(aiormq.Channel, CLOSE_CHANNEL, _close_once)

# How many heartbeats RabbitMQ may miss (see broker.HEARTBEAT_SECONDS). Public, but an int there.
setattr(aiormq.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 1.5)  # noqa: B010


def on_blocked(
    connection: AbstractConnection,
    blocked: Callable[[aiormq.spec.Connection.Blocked], Awaitable[None]],
    unblocked: Callable[[aiormq.spec.Connection.Unblocked], Awaitable[None]],
) -> None:
    """Call these when RabbitMQ blocks the connection, and when it no longer does."""
    inside: Any = connection.transport and connection.transport.connection
    setattr(inside, BLOCKED, blocked)
    setattr(inside, UNBLOCKED, unblocked)


async def publish(
    channel: aiormq.Channel, exchange: str, key: str, messages: Sequence[aio_pika.Message]
) -> list[asyncio.Future[Any]]:
    """Publish messages in one write; return the futures that aiormq sets when they are confirmed.

    Its own takes a lock, two task switches and a write per message. If this raises, nothing was
    written.
    """
    method = aiormq.spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=True)
    begin = frame.marshal(method, channel.number)
    written = bytearray()
    for message in messages:
        header = ContentHeader(properties=message.properties, body_size=len(message.body))
        written += begin
        written += frame.marshal(header, channel.number)
        for part in channel._split_body(message.body):  # noqa: SLF001
            written += frame.marshal(part, channel.number)
    # Only aiormq's writer waits for the flush, and takes no more until then.
    flushed = asyncio.get_running_loop().create_future()
    async with channel.lock:
        await channel.write_queue.put(
            ChannelFrame(bytes(written), should_close=False, drain_future=flushed)
        )
        # Nothing is awaited from here on: its other tasks must find all of these.
        confirms = [channel.create_future() for _ in messages]
        for message, confirm in zip(messages, confirms, strict=True):
            channel.delivery_tag += 1
            channel.confirmations[channel.delivery_tag] = confirm
            channel.message_id_delivery_tag[str(message.message_id)] = channel.delivery_tag
    return confirms
