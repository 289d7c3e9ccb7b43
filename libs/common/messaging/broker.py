"""The broker: connected in the background, topology on each connection, confirmed publishes.

There are two connections: during an alarm (disk, memory) RabbitMQ stops reading from one that
publishes, and acknowledgements on the same socket would wait too. If one is lost, both are closed:
publishes in flight then raise Unconfirmed, and consumed messages are redelivered.
"""

import asyncio
import json
import uuid
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, HeadersType

from libs.common.messaging import session as amqp
from libs.common.messaging.queue_depths import Depths, QueueDepths
from libs.common.messaging.topology import Binding, Exchange, Queue
from libs.common.process import logs, sockets, tasks, tracing
from libs.common.process.logs import log
from libs.common.process.metrics import SHARED

REQUEST_ID = "x-request-id"
HIGH = 5
"""A quorum queue has two priorities: 5 and above is high. It delivers two high messages and then
one other, so neither waits forever."""
CONNECT_SECONDS = 5.0
HEARTBEAT_SECONDS = 5
"""aiormq gives up a peer that was silent for (5 + 1) * 1.5 s. RabbitMQ sends something at least
every 5 s; it advises 5 to 20."""
_RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0)
_DECLARE_SECONDS = 2.0
_DECLARE_AGAIN_SECONDS = 1.0
_DECLARE_ALL_SECONDS = 60.0

CONNECTED = SHARED.gauge("broker_connected", "livemin")  # of several processes: all of them
PUBLISHED = SHARED.counter("broker_published_total")
_count = cache(PUBLISHED.labels)  # of a closed set


class PublishError(Exception):
    """The message was not confirmed."""


class Unroutable(PublishError):  # noqa: N818 - reads as what happened
    """The broker refused it (no exchange, no bound queue, or no permission); it is not stored."""


class BrokerUnavailable(PublishError):  # noqa: N818 - reads as what happened
    """Not connected or blocked: certainly not stored."""


class Unconfirmed(PublishError):  # noqa: N818 - reads as what happened
    """The outcome is unknown: it may be stored."""


@dataclass(frozen=True)
class Message:
    id: str
    type: str
    body: Mapping[str, Any]
    request_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    expiration: float | None = None
    """Expiration in seconds; only for a queue without dead-lettering (topology.request_queue)."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    priority: int | None = None
    """HIGH, or none; a dead-lettered message keeps it."""
    redelivered: bool = False
    """True if it may have been delivered before; always after a rejection."""


def message(type: str, body: Mapping[str, Any], **properties: Any) -> Message:  # noqa: A002 - AMQP's name
    """Make a message with a new id and the current request's id."""
    properties.setdefault("request_id", logs.request_id.get())
    return Message(str(uuid.uuid4()), type, body, **properties)


_Step = Exchange | Queue | tuple[Queue, Binding]


class Broker:
    """Use `Broker.connect`."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.queues: dict[str, Queue] = {}
        self._urls = deque(sockets.each_host(url))
        self._session: amqp.Session | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._ready = asyncio.Event()
        self._steps: dict[str, _Step] = {}
        self._undeclared: set[str] = set()
        self._refused: dict[str, str] = {}
        self._declaring = asyncio.Lock()
        self._declare_soon = asyncio.Event()
        self._in_flight: dict[str, asyncio.Future[None]] = {}
        self._depths = QueueDepths(partial(self._connection, "look"))

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, name: str) -> AsyncIterator["Broker"]:
        """Stay connected while the context is open; RabbitMQ may be unavailable at any time.

        :param url: with one host, or the hosts of a cluster's nodes in the order in which they are
            tried (see sockets.each_host). A lost node is left for the next one.
        """
        broker = cls(url, name)
        keepers = [
            asyncio.create_task(broker._keep_connected(), name="broker connection"),
            asyncio.create_task(broker._keep_declared(), name="broker topology"),
        ]
        try:
            yield broker
        finally:
            await tasks.end(*keepers)
            if broker._session is not None:
                await broker._session.close()
                broker._session = None
            await broker._depths.close()
            await asyncio.gather(*broker._closing)

    @property
    def connected(self) -> bool:
        return self._session is not None and not self._session.lost.is_set()

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ blocks publishes because it is short of disk or memory."""
        return self._session is not None and self._session.blocked

    @property
    def refused(self) -> Mapping[str, str]:
        """Items that could not be declared, with the reason; they are retried continually."""
        return self._refused

    async def session(self) -> amqp.Session:
        """Wait for a connection."""
        while True:
            await self._ready.wait()
            if (session := self._session) is not None and not session.lost.is_set():
                return session
            await asyncio.sleep(0)

    async def declare(self, *items: Exchange | Queue) -> None:
        """Declare now, if connected, and on each new connection; retry what is refused."""
        for item in items:
            steps: dict[str, _Step] = {f"{type(item).__name__.lower()} {item.name}": item}
            if isinstance(item, Queue):
                self.queues[item.name] = item
                steps |= {
                    f"binding {bound.exchange.name} {bound.key} {item.name}": (item, bound)
                    for bound in item.bindings
                }
            self._steps |= steps
            self._undeclared |= steps.keys()
        if self._session is not None:
            try:
                with amqp.connection_faults():
                    await self._declare(self._session)
            except Exception as error:  # noqa: BLE001 - see report; _keep_declared tries again
                amqp.report(log, "broker.not_declared", error)

    async def remove(self, *queues: Queue) -> None:
        """Delete queues with their messages, and declare them no longer.

        :raises BrokerUnavailable: not connected; they stay, without a consumer
        """
        for queue in queues:
            self.queues.pop(queue.name, None)
            for step in [each for each in self._steps if each.endswith(f" {queue.name}")]:
                del self._steps[step]
                self._undeclared.discard(step)
        async with self._temporary_channel() as channel:
            for queue in queues:
                await channel.queue_delete(queue.name, timeout=amqp.CALL_SECONDS)

    async def declare_once(self, queue: Queue) -> None:
        """Declare a queue on this connection only, so that its loss is noticed.

        :raises BrokerUnavailable: not connected, or the connection was lost
        """
        async with self._temporary_channel() as channel:
            await _declare_step(channel, queue)

    def declare_again(self) -> None:
        """Declare everything again soon: something is missing, e.g. was deleted by an operator."""
        self._undeclared |= self._steps.keys()
        self._declare_soon.set()

    async def exists(self, queue: str) -> bool:
        """:raises BrokerUnavailable: not connected, or the connection was lost"""
        async with self._temporary_channel() as channel:
            try:
                await channel.declare_queue(queue, passive=True, timeout=amqp.CALL_SECONDS)
            except aiormq.exceptions.ChannelNotFoundEntity:
                return False
            return True

    async def depths(self, queues: Collection[str]) -> Depths:
        """Count the ready messages of each queue; None: unknown.

        An answer may be a second older than the question. A missing queue has 0.
        """
        if not self.connected:
            return dict.fromkeys(queues)
        return await self._depths.at(queues)

    @asynccontextmanager
    async def _temporary_channel(self) -> AsyncIterator[AbstractChannel]:
        """Open a channel for one request: a refusal by the broker closes it."""
        session = self._session
        if session is None or session.lost.is_set():
            raise BrokerUnavailable
        try:
            with amqp.connection_faults():
                channel = await amqp.open_channel(session.consuming)
                try:
                    yield channel
                finally:
                    await amqp.close(channel)
        except amqp.FAULTS as error:
            raise BrokerUnavailable from error

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        message: Message | aio_pika.Message,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 - it decides between two outcomes, see the raises
    ) -> None:
        """Publish, and wait until each queue it was routed to has the message on disk.

        :raises Unroutable: no queue is bound
        :raises BrokerUnavailable: not connected or blocked: certainly not stored
        :raises Unconfirmed: unknown, e.g. no confirmation within the timeout
        """
        sent = self.encode(message) if isinstance(message, Message) else message
        (failed,) = await self.send_all(exchange, routing_key, [sent], timeout=timeout)
        if failed is not None:
            try:
                raise failed
            finally:
                del failed  # a cycle with this frame would keep what the caller was handling

    def encode(self, message: Message, body: str | None = None) -> aio_pika.Message:
        """Make the AMQP message that `publish` sends, with the current trace if it is its own.

        :param body: its JSON, if that is known
        """
        if body is None:
            body = json.dumps(
                message.body, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            )
        headers = {**tracing.headers(message.request_id), **message.headers}
        if message.request_id is not None:
            headers[REQUEST_ID] = message.request_id
        return aio_pika.Message(
            body.encode(),
            message_id=message.id,
            type=message.type,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            app_id=self.name,
            timestamp=datetime.now(UTC),
            headers=cast("HeadersType", headers),
            reply_to=message.reply_to,
            correlation_id=message.correlation_id,
            expiration=message.expiration,
            priority=message.priority,
        )

    async def send_all(
        self,
        exchange: str,
        routing_key: str,
        messages: Sequence[aio_pika.Message],
        *,
        timeout: float,  # noqa: ASYNC109 - as publish
    ) -> list[PublishError | None]:
        """Publish AMQP messages of different ids in one write; wait once for all their confirms.

        :returns: what `publish` would have raised for each
        """
        outcomes = await self._confirmed(exchange, routing_key, messages, timeout)
        for outcome in outcomes:
            _count(type(outcome).__name__.lower() if outcome else "confirmed").inc()
        return outcomes

    async def _confirmed(
        self, exchange: str, routing_key: str, messages: Sequence[aio_pika.Message], seconds: float
    ) -> list[PublishError | None]:
        session = self._session
        if session is None or session.lost.is_set() or session.blocked:
            return [BrokerUnavailable() for _ in messages]
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        queue = routing_key if routing_key in self.queues else ""
        name, fault = f"{exchange} {routing_key}", ""
        confirms: Sequence[asyncio.Future[Any]] = ()
        async with self._one_at_a_time([str(message.message_id) for message in messages]):
            try:
                with amqp.connection_faults():
                    async with (
                        asyncio.timeout_at(deadline) as waiting,
                        session.publisher(exchange, queue) as publisher,
                    ):
                        if session.blocked:
                            raise ConnectionError("blocked meanwhile")
                        session.waiting.add(waiting)
                        sent = clock()
                        try:
                            async with publisher.published(messages, routing_key) as confirms:
                                await asyncio.wait(confirms)
                        finally:
                            session.waiting.discard(waiting)
                            answered = not all(confirm.cancelled() for confirm in confirms)
                            session.note_publish(sent, answered=answered)
            except amqp.FAULTS as error:
                fault = repr(error)
        if not confirms:
            return [BrokerUnavailable(f"{name}: {fault}") for _ in messages]
        outcomes = [_outcome(confirm, name, fault) for confirm in confirms]
        if any(isinstance(outcome, Unroutable) for outcome in outcomes):
            self.declare_again()
        return outcomes

    @asynccontextmanager
    async def _one_at_a_time(self, ids: Sequence[str]) -> AsyncIterator[None]:
        # aiormq matches a returned message by its message id. With two of one id in flight, the
        # return of the first would fail the second, and the first would count as confirmed.
        while duplicates := {self._in_flight[id_] for id_ in ids if id_ in self._in_flight}:
            await asyncio.wait(duplicates)
        done = asyncio.get_running_loop().create_future()
        self._in_flight |= dict.fromkeys(ids, done)
        try:
            yield
        finally:
            for id_ in ids:
                del self._in_flight[id_]
            done.set_result(None)

    async def _keep_connected(self) -> None:
        while True:
            self._session = session = await self._connected()
            self._ready.set()
            CONNECTED.set(1)
            log.info("broker.connected")
            await session.lost.wait()
            self._ready.clear()
            self._session = None
            CONNECTED.set(0)
            log.warning("broker.lost")
            self._urls.rotate(-1)
            # Not awaited here: a frozen node does not answer it.
            task = asyncio.create_task(session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _connected(self) -> amqp.Session:
        attempt = 0
        while True:
            try:
                with amqp.connection_faults():
                    return await self._open()
            except Exception as error:  # noqa: BLE001 - see report
                if attempt == 0:
                    amqp.report(log, "broker.unreachable", error)
            self._urls.rotate(-1)
            await asyncio.sleep(_RECONNECT_SECONDS[min(attempt, len(_RECONNECT_SECONDS) - 1)])
            attempt += 1

    async def _open(self) -> amqp.Session:
        publishing = await self._connection("publish")
        try:
            consuming = await self._connection("consume")
        except BaseException:
            await amqp.close(publishing)
            raise
        session = amqp.Session(publishing, consuming)
        self._undeclared |= self._steps.keys()
        try:
            # While a node is frozen, the others finish no binding, not even one that exists, until
            # they have given it up (net_ticktime). _keep_declared tries again.
            with suppress(TimeoutError):
                async with asyncio.timeout(_DECLARE_SECONDS):
                    await self._declare(session)
        except BaseException:
            await session.close()
            raise
        return session

    async def _connection(self, purpose: str) -> AbstractConnection:
        return await aio_pika.connect(
            self._urls[0],
            timeout=CONNECT_SECONDS,
            client_properties={"connection_name": f"{self.name} {purpose}"},
            heartbeat=HEARTBEAT_SECONDS,
            connection_class=amqp.Connection,
        )

    async def _keep_declared(self) -> None:
        # Everything once a minute: nothing reports a deleted `.retry`, and rejected messages wait
        # for it.
        clock = asyncio.get_running_loop().time
        declare_all = clock() + _DECLARE_ALL_SECONDS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DECLARE_AGAIN_SECONDS):
                    await self._declare_soon.wait()
                    # Declare once, even if a thousand publishes find their queue missing.
                    await asyncio.sleep(_DECLARE_AGAIN_SECONDS)
            self._declare_soon.clear()
            if clock() > declare_all:
                self._undeclared |= self._steps.keys()
                declare_all = clock() + _DECLARE_ALL_SECONDS
            if self._undeclared and (session := self._session) is not None:
                try:
                    with amqp.connection_faults():
                        await self._declare(session)
                except Exception as error:  # noqa: BLE001 - see report
                    amqp.report(log, "broker.not_declared", error)

    async def _declare(self, session: amqp.Session) -> None:
        """Declare each item separately: a refusal closes the channel but affects no other item.

        Bindings come last: a killed RabbitMQ loses the messages of a queue younger than a second,
        unless something was declared after it (docs/decisions/0002-messaging.md).
        """
        async with self._declaring:
            channel: AbstractChannel | None = None
            steps = self._steps.items()
            for name, step in sorted(steps, key=lambda item: isinstance(item[1], tuple)):
                if name not in self._undeclared:
                    continue
                if channel is None or channel.is_closed:
                    channel = await amqp.open_channel(session.consuming)
                try:
                    await _declare_step(channel, step)
                except aiormq.exceptions.AMQPChannelError as error:
                    if self._refused.get(name) != repr(error):
                        self._refused[name] = repr(error)
                        log.error("broker.declare_refused", item=name, error=repr(error))  # noqa: TRY400
                else:
                    self._undeclared.discard(name)
                    self._refused.pop(name, None)
            if channel is not None:
                await amqp.close(channel)


def _outcome(confirm: asyncio.Future[Any], name: str, fault: str) -> PublishError | None:
    error = asyncio.CancelledError() if confirm.cancelled() else confirm.exception()
    match error:
        case None:
            return None
        case (
            aiormq.exceptions.PublishError()
            | aiormq.exceptions.ChannelNotFoundEntity()
            | aiormq.exceptions.ChannelAccessRefused()
        ):
            return Unroutable(f"{name}: {error!r}")
        case _:
            return Unconfirmed(f"{name}: {fault or repr(error)}")


async def _declare_step(channel: AbstractChannel, step: _Step) -> None:
    match step:
        case Exchange():
            await channel.declare_exchange(
                step.name, step.kind, durable=True, timeout=amqp.CALL_SECONDS
            )
        case Queue():
            await channel.declare_queue(
                step.name, durable=True, arguments=dict(step.arguments), timeout=amqp.CALL_SECONDS
            )
        case (Queue(name), Binding(exchange, key)):
            queue = await channel.get_queue(name, ensure=False)
            await queue.bind(exchange.name, key, timeout=amqp.CALL_SECONDS)
