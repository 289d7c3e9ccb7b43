"""RabbitMQ: one connection that comes back, publishing that is confirmed, topology that is kept."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

import aio_pika
import aiormq.exceptions
import prometheus_client
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from libs.common import logs
from libs.common.topology import Binding, Exchange, Queue

log = logs.get_logger(__name__)

REQUEST_ID_HEADER = "x-request-id"
CONNECT_SECONDS = 5.0
HEARTBEAT_SECONDS = 10
RECONNECT_SECONDS = 1.0

LOST = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError)
"""What aio-pika and aiormq raise when a connection or a channel is not, or no longer, there."""

_CONNECTED = prometheus_client.Gauge("broker_connected", "1 while RabbitMQ is connected.")
_PUBLISHED = prometheus_client.Counter(
    "broker_published_total", "Publishes by outcome.", ["outcome"]
)


class PublishError(Exception):
    """The message was not confirmed."""


class BrokerUnavailable(PublishError):  # noqa: N818 - the field's word
    """RabbitMQ is away or refuses publishes; the message was certainly not taken."""


class Unroutable(PublishError):  # noqa: N818 - the field's word
    """No queue is bound for it; the message was certainly not taken."""


class Unconfirmed(PublishError):  # noqa: N818 - the field's word
    """No confirmation came; the message may or may not have been taken."""


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    type: str
    body: dict[str, Any]
    request_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    expiration: float | None = None
    """Seconds after which the broker drops it unread."""
    headers: Mapping[str, Any] = field(default_factory=dict)


def message(kind: str, body: dict[str, Any], **properties: Any) -> Message:
    """Make a message with an id of its own that carries on the current request's id."""
    return Message(str(uuid.uuid4()), kind, body, request_id=logs.request_id.get(), **properties)


SessionCallback = Callable[[AbstractConnection], Awaitable[None]]


class Broker:
    """Connects in the background and again after each loss; a start never waits for RabbitMQ.

    What was declared is declared again on every connection, so that a broker which lost its disk
    gets its queues back. aio-pika's robust connection restores less, and hides when it did.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: AbstractConnection | None = None
        self._publisher: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._items: list[Exchange | Queue] = []
        self._callbacks: list[SessionCallback] = []
        self._foreign: set[tuple[str, Binding]] = set()

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, name: str) -> AsyncIterator[Self]:
        broker = cls(url, name)
        task = asyncio.create_task(broker._run(), name="broker")
        try:
            yield broker
        finally:
            task.cancel()
            await asyncio.wait({task})
            connection, broker._connection = broker._connection, None
            if connection is not None:
                await connection.close()

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def blocked(self) -> bool:
        """RabbitMQ holds publishes back (disk or memory alarm); only aiormq's inside knows."""
        if self._connection is None or self._connection.transport is None:
            return False
        unblocked = getattr(
            self._connection.transport.connection, "_Connection__connection_unblocked", None
        )
        return isinstance(unblocked, asyncio.Event) and not unblocked.is_set()

    async def declare(self, *items: Exchange | Queue) -> None:
        """Declare these now, where connected, and on every later connection."""
        self._items.extend(item for item in items if item not in self._items)
        await self._now(partial(self._declare, items=items))

    async def redeclare(self) -> None:
        """Bring back what somebody deleted while the connection lived on."""
        await self._now(partial(self._declare, items=self._items))

    async def on_connect(self, callback: SessionCallback) -> None:
        """Call it now, where connected, and on every later connection, after the declarations."""
        self._callbacks.append(callback)
        await self._now(callback)

    def forget(self, callback: SessionCallback) -> None:
        self._callbacks.remove(callback)

    async def _now(self, callback: SessionCallback) -> None:
        if self._connection is not None:
            try:
                await callback(self._connection)
            except LOST as error:
                log.info("broker.lost_meanwhile", error=repr(error))  # the next connection does it

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        message: Message,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 - a part of the outcome: Unconfirmed
    ) -> None:
        """Return when RabbitMQ has the message safely in a queue.

        :raises BrokerUnavailable: not taken
        :raises Unroutable: not taken
        :raises Unconfirmed: unknown; publishing again under the same id may make a twin
        """
        await self._publish(exchange, routing_key, self._encode(message), timeout)

    async def forward(
        self,
        exchange: str,
        routing_key: str,
        incoming: AbstractIncomingMessage,
        headers: Mapping[str, Any],
    ) -> None:
        """Publish what came in, byte for byte, under other headers; raises as `publish`."""
        message = aio_pika.Message(
            incoming.body,
            message_id=incoming.message_id,
            type=incoming.type,
            headers=dict(headers),
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            content_type=incoming.content_type,
            app_id=self._name,
            timestamp=datetime.now(UTC),
        )
        await self._publish(exchange, routing_key, message, 5.0)

    async def _publish(
        self, exchange: str, routing_key: str, message: aio_pika.Message, seconds: float
    ) -> None:
        try:
            await self._confirmed(exchange, routing_key, message, seconds)
        except PublishError as error:
            _PUBLISHED.labels(type(error).__name__.lower()).inc()
            raise
        _PUBLISHED.labels("confirmed").inc()

    async def _confirmed(
        self, exchange: str, routing_key: str, message: aio_pika.Message, seconds: float
    ) -> None:
        if self.blocked:
            raise BrokerUnavailable("RabbitMQ blocks publishers: disk or memory alarm")
        try:
            async with asyncio.timeout(seconds):
                channel = await self._publish_channel()
        except LOST as error:
            raise BrokerUnavailable(type(error).__name__) from error
        try:
            target = await channel.get_exchange(exchange, ensure=False)
            await target.publish(message, routing_key, mandatory=True, timeout=seconds)
        except aiormq.exceptions.PublishError as error:  # before its parent DeliveryError
            raise Unroutable(f"{exchange} → {routing_key}") from error
        except LOST as error:
            # Also a missing exchange: it closes the channel, and every publish under way on it,
            # taken or not, hears the same error.
            raise Unconfirmed(type(error).__name__) from error

    async def _publish_channel(self) -> AbstractChannel:
        async with self._opening:
            if self._connection is None:
                raise BrokerUnavailable("RabbitMQ is not connected")
            if self._publisher is None or self._publisher.is_closed:
                # on_return_raises: without it an unroutable message looks published
                self._publisher = await self._connection.channel(
                    publisher_confirms=True, on_return_raises=True
                )
            return self._publisher

    def _encode(self, message: Message) -> aio_pika.Message:
        headers = dict(message.headers)
        if message.request_id is not None:
            headers[REQUEST_ID_HEADER] = message.request_id
        return aio_pika.Message(
            json.dumps(message.body, ensure_ascii=False, allow_nan=False).encode(),
            message_id=message.id,
            type=message.type,
            headers=headers,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            content_type="application/json",
            app_id=self._name,
            timestamp=datetime.now(UTC),
            reply_to=message.reply_to,
            correlation_id=message.correlation_id,
            expiration=message.expiration,
        )

    async def _run(self) -> None:
        reported = False
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = await aio_pika.connect(
                        self._url,
                        heartbeat=HEARTBEAT_SECONDS,
                        client_properties={"connection_name": self._name},
                    )
            except LOST as error:
                if not reported:  # one line a change, not one a second
                    log.warning("broker.away", error=type(error).__name__)
                    reported = True
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            reported = False
            await self._live(connection)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _live(self, connection: AbstractConnection) -> None:
        closed = asyncio.Event()
        connection.close_callbacks.add(lambda *_: closed.set())
        try:
            await self._declare(connection, self._items)
            self._connection = connection
            for callback in list(self._callbacks):
                await callback(connection)
            _CONNECTED.set(1)
            log.info("broker.connected")
            while not closed.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(RECONNECT_SECONDS):
                        await closed.wait()
                await self._bind_foreign(connection)
        except LOST as error:
            log.warning("broker.session_failed", error=repr(error))
        finally:
            self._connection = self._publisher = None
            _CONNECTED.set(0)
            with suppress(Exception):
                await connection.close()
        log.warning("broker.lost")

    async def _declare(
        self, connection: AbstractConnection, items: Iterable[Exchange | Queue]
    ) -> None:
        items = list(items)
        async with connection.channel() as channel:
            for item in items:
                if isinstance(item, Exchange):
                    await channel.declare_exchange(item.name, item.kind, durable=True)
                else:
                    await channel.declare_queue(
                        item.name, durable=True, arguments=dict(item.arguments)
                    )
        owned = {item.name for item in self._items if isinstance(item, Exchange)}
        for item in items:
            if isinstance(item, Queue):
                for binding in item.bindings:
                    if binding.exchange.name in owned:
                        await self._bind(connection, item.name, binding)
                    else:
                        self._foreign.add((item.name, binding))
        await self._bind_foreign(connection)

    async def _bind_foreign(self, connection: AbstractConnection) -> None:
        # Another service's exchange may not exist yet: that closes the channel (404), so each
        # binding has one of its own, and is tried again later.
        for queue, binding in list(self._foreign):
            try:
                await self._bind(connection, queue, binding)
            except aiormq.exceptions.ChannelNotFoundEntity:
                continue
            self._foreign.discard((queue, binding))

    @staticmethod
    async def _bind(connection: AbstractConnection, queue: str, binding: Binding) -> None:
        async with connection.channel() as channel:
            bound = await channel.get_queue(queue, ensure=False)
            await bound.bind(binding.exchange.name, binding.key)
