"""The broker: connected in the background, topology on each connection, confirmed publishes.

There are two connections: during an alarm (disk, memory) RabbitMQ stops reading from one that
publishes, and acknowledgements on the same socket would wait too. If one is lost, both are closed:
publishes in flight then raise Unconfirmed, and consumed messages are redelivered.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, HeadersType
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from prometheus_client import Counter, Gauge
from yarl import URL

from libs.common import sockets
from libs.common.messaging import aiormq_private
from libs.common.messaging.queue_depths import Depths, QueueDepths
from libs.common.messaging.topology import Binding, Exchange, Queue
from libs.common.process import logs, tasks, tracing

log = logs.get_logger(__name__)

REQUEST_ID = "x-request-id"
CONNECT_SECONDS = 5.0
CALL_SECONDS = 5.0
HEARTBEAT_SECONDS = 5
"""aiormq gives up a peer that was silent for (5 + 1) * 3 s; RabbitMQ advises 5 to 20."""
SILENT_SECONDS = 30.0
DRAIN_BYTES = 64 * 1024
_RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0)
_DECLARE_AGAIN_SECONDS = 1.0
_DECLARE_ALL_SECONDS = 60.0

CONNECTED = Gauge(
    "broker_connected",
    "1 while connected with the topology declared",
    multiprocess_mode="livemin",  # where several processes share one view: all of them
)
PUBLISHED = Counter("broker_published_total", "Publishes by their outcome", ["outcome"])

# What aio-pika, aiormq, asyncio's streams and the socket raise when the connection or the channel
# is lost, refused or too slow.
FAULTS: tuple[type[BaseException], ...] = (
    *CONNECTION_EXCEPTIONS,
    TimeoutError,
    EOFError,
)


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


def message(type: str, body: Mapping[str, Any], **properties: Any) -> Message:  # noqa: A002 - AMQP's name
    """Make a message with a new id and the current request's id."""
    properties.setdefault("request_id", logs.request_id.get())
    return Message(str(uuid.uuid4()), type, body, **properties)


@contextmanager
def connection_faults() -> Iterator[None]:
    """Turn the cancellation by a lost connection into a ConnectionError.

    aiormq raises CancelledError in whatever waits on a lost channel: unguarded, a worker ends as if
    its service were stopping. On a connection that we close, it raises a bare Exception.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("the connection to the broker was lost") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise ConnectionError("the connection to the broker was closed") from error


def report(log: logs.Logger, event: str, error: Exception, **values: object) -> None:
    """Log an error of a loop that begins again after any error.

    Such a loop must survive unforeseen errors: nothing would show that a queue has no consumer.
    """
    log.warning(event, error=repr(error), exc_info=not isinstance(error, FAULTS), **values)


async def open_channel(connection: AbstractConnection) -> AbstractChannel:
    """Open a channel without confirms in bounded time, unlike aio-pika's own argument."""
    channel = connection.channel(publisher_confirms=False)
    async with asyncio.timeout(CALL_SECONDS):
        await channel.initialize()
    return channel


class _PublisherChannel:
    """The channel for publishing to one queue or one exchange."""

    def __init__(self, exchange: str) -> None:
        self.lock = asyncio.Lock()
        self.channel: AbstractChannel | None = None
        self.proven = False
        self._exchange = exchange
        self._undrained = 0

    async def publish(self, message: aio_pika.Message, routing_key: str) -> None:
        """Publish and wait for the confirm.

        aio-pika's `publish` flushes each message before it takes the next: one message per loop
        iteration. This flushes only once DRAIN_BYTES are buffered.
        """
        if self.channel is None:
            raise ConnectionError("no channel")
        channel = cast("aiormq.Channel", await self.channel.get_underlay_channel())
        self._undrained += len(message.body)
        drain = self._undrained >= DRAIN_BYTES
        if drain:
            self._undrained = 0
        await channel.basic_publish(
            message.body,
            exchange=self._exchange,
            routing_key=routing_key,
            properties=message.properties,
            mandatory=True,
            wait=drain,
        )


class _Transport(aiormq.connection.TransportFactory):
    """Tries the addresses of a name in parallel; aiormq tries one after another."""

    async def create(
        self, url: URL, **options: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        secure = url.scheme == "amqps"
        # Before the socket is opened, which nothing would close if this failed.
        context = await options["ssl_context_provider"].get_context() if secure else None
        return await asyncio.open_connection(
            sock=await sockets.connected(url.host or "", url.port or 0),
            ssl=context,
            server_hostname=url.host if secure else None,
        )


class _Connection(aio_pika.Connection):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kwargs["transport_factory"] = _Transport()


class Session:
    """A pair of connections, until either is lost."""

    def __init__(self, publishing: AbstractConnection, consuming: AbstractConnection) -> None:
        self.consuming = consuming
        self.lost = asyncio.Event()
        self.blocked = False
        self.waiting: set[asyncio.Timeout] = set()
        self.silent_since: float | None = None  # when the oldest unanswered publish was sent
        self._publishing = publishing
        self._publishers: dict[tuple[str, str], _PublisherChannel] = {}
        for connection in (publishing, consuming):
            connection.close_callbacks.add(self._on_close)
            if not connection.connected.is_set():
                self.lost.set()
        aiormq_private.on_blocked(publishing, self._on_blocked, self._on_unblocked)

    def _on_close(self, *_: object) -> None:
        self.lost.set()

    async def _on_blocked(self, frame: aiormq.spec.Connection.Blocked) -> None:
        log.warning("broker.blocked", reason=frame.reason)
        self.blocked = True
        self.silent_since = None
        # RabbitMQ reports it upon a publish, and confirms nothing until the alarm is over.
        for timeout in self.waiting:
            if not timeout.expired():
                timeout.reschedule(0)

    async def _on_unblocked(self, _: aiormq.spec.Connection.Unblocked) -> None:
        log.info("broker.unblocked")
        self.blocked = False

    def note_publish(self) -> None:
        """Count the session as lost when RabbitMQ has answered no publish for SILENT_SECONDS."""
        now = asyncio.get_running_loop().time()
        if self.silent_since is None:
            self.silent_since = now
        elif now - self.silent_since > SILENT_SECONDS:
            log.warning("broker.silent", seconds=SILENT_SECONDS)
            self.lost.set()

    @asynccontextmanager
    async def publisher(self, exchange: str, queue: str) -> AsyncIterator[_PublisherChannel]:
        """Return the confirming channel of a queue, or of an exchange (queue "").

        RabbitMQ may block a channel for a minute when a message goes to a queue without a leader.
        Publishing to a missing or forbidden exchange closes the channel and leaves everything in
        flight on it unconfirmed. Neither may affect other messages. Also, aiormq keeps writing
        after the channel was closed, and RabbitMQ then closes the connection, so the first publish
        on a channel is sent alone.
        """
        publisher = self._publishers.setdefault((exchange, queue), _PublisherChannel(exchange))
        async with publisher.lock:
            if publisher.channel is None or publisher.channel.is_closed:
                publisher.proven = False
                publisher.channel = self._publishing.channel(
                    publisher_confirms=True, on_return_raises=True
                )
                await publisher.channel.initialize()
            if not publisher.proven:
                try:
                    yield publisher
                except aiormq.exceptions.PublishError:  # the exchange exists, but no queue is bound
                    publisher.proven = True
                    raise
                publisher.proven = True
                return
        yield publisher

    async def close(self) -> None:
        self.lost.set()
        for connection in (self._publishing, self.consuming):
            with suppress(*FAULTS), connection_faults():
                async with asyncio.timeout(CALL_SECONDS):
                    await connection.close()


@dataclass(frozen=True)
class _Bind:
    queue: str
    binding: Binding


_Step = Exchange | Queue | _Bind


class Broker:
    """Use `Broker.connect`."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.queues: dict[str, Queue] = {}
        self._url = url
        self._session: Session | None = None
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
        """Stay connected while the context is open; RabbitMQ may be unavailable at any time."""
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

    async def session(self) -> Session:
        """Wait for a connection whose topology is declared."""
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
                    f"binding {bound.exchange.name} {bound.key} {item.name}": _Bind(
                        item.name, bound
                    )
                    for bound in item.bindings
                }
            self._steps |= steps
            self._undeclared |= steps.keys()
        if self._session is not None:
            try:
                with connection_faults():
                    await self._declare(self._session)
            except Exception as error:  # noqa: BLE001 - see report; _keep_declared tries again
                report(log, "broker.not_declared", error)

    async def declare_once(self, queue: Queue) -> None:
        """Declare a queue on this connection only, so that its loss is noticed.

        :raises BrokerUnavailable: not connected, or lost meanwhile
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
                await channel.declare_queue(queue, passive=True, timeout=CALL_SECONDS)
            except aiormq.exceptions.ChannelNotFoundEntity:
                return False
            return True

    async def depths(self, queues: Collection[str]) -> Depths:
        """Count the ready messages of each queue; None: unknown.

        An answer may be a second old. A missing queue has 0.
        """
        if not self.connected:
            return dict.fromkeys(queues)
        return await self._depths.at(queues, (await self.session()).consuming)

    @asynccontextmanager
    async def _temporary_channel(self) -> AsyncIterator[AbstractChannel]:
        """Open a channel for one request: a refusal by the broker closes it."""
        session = self._session
        if session is None or session.lost.is_set():
            raise BrokerUnavailable
        try:
            with connection_faults():
                channel = await open_channel(session.consuming)
                try:
                    yield channel
                finally:
                    await channel.close()
        except FAULTS as error:
            raise BrokerUnavailable from error

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        message: Message,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 - it decides between two outcomes, see the raises
    ) -> None:
        """Publish, and wait until each queue it was routed to has the message on disk.

        :raises Unroutable: no queue is bound
        :raises BrokerUnavailable: not connected or blocked: certainly not stored
        :raises Unconfirmed: unknown, e.g. no confirmation within the timeout
        """
        body = json.dumps(message.body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        headers = {**tracing.headers(message.request_id), **message.headers}
        if message.request_id is not None:
            headers[REQUEST_ID] = message.request_id
        wrapped = self.wrap(
            message.id,
            message.type,
            body.encode(),
            headers,
            reply_to=message.reply_to,
            correlation_id=message.correlation_id,
            expiration=message.expiration,
        )
        await self.send(exchange, routing_key, wrapped, timeout=timeout)

    def wrap(
        self,
        message_id: str,
        type: str,  # noqa: A002 - AMQP's name
        body: bytes,
        headers: Mapping[str, Any],
        **properties: Any,
    ) -> aio_pika.Message:
        """Make an AMQP message; `body` is its JSON, `headers` are complete."""
        return aio_pika.Message(
            body,
            message_id=message_id,
            type=type,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            app_id=self.name,
            timestamp=datetime.now(UTC),
            headers=cast("HeadersType", headers),
            **properties,
        )

    async def send(
        self,
        exchange: str,
        routing_key: str,
        message: aio_pika.Message,
        *,
        timeout: float,  # noqa: ASYNC109 - as publish
    ) -> None:
        """Publish an AMQP message as `publish` does."""
        try:
            await self._confirmed(exchange, routing_key, message, timeout)
        except PublishError as error:
            PUBLISHED.labels(type(error).__name__.lower()).inc()
            raise
        PUBLISHED.labels("confirmed").inc()

    async def _confirmed(
        self, exchange: str, routing_key: str, message: aio_pika.Message, seconds: float
    ) -> None:
        session = self._session
        if session is None or session.lost.is_set() or session.blocked:
            raise BrokerUnavailable
        deadline = asyncio.get_running_loop().time() + seconds
        queue = routing_key if routing_key in self.queues else ""
        handed_over = False
        async with self._one_at_a_time(str(message.message_id)):
            try:
                with connection_faults():
                    async with (
                        asyncio.timeout_at(deadline) as waiting,
                        session.publisher(exchange, queue) as publisher,
                    ):
                        if session.blocked:  # meanwhile
                            raise BrokerUnavailable
                        session.waiting.add(waiting)
                        handed_over = True
                        session.note_publish()
                        try:
                            await publisher.publish(message, routing_key)
                        finally:
                            session.waiting.discard(waiting)
                session.silent_since = None
            except (
                aiormq.exceptions.PublishError,
                aiormq.exceptions.ChannelNotFoundEntity,
                aiormq.exceptions.ChannelAccessRefused,
            ) as error:
                session.silent_since = None
                self.declare_again()
                raise Unroutable(f"{exchange} {routing_key}: {error!r}") from error
            except FAULTS as error:
                outcome = Unconfirmed if handed_over else BrokerUnavailable
                raise outcome(f"{exchange} {routing_key}: {error!r}") from error

    @asynccontextmanager
    async def _one_at_a_time(self, message_id: str) -> AsyncIterator[None]:
        # aiormq matches a returned message by its message id. With two of one id in flight, the
        # return of the first would fail the second, and the first would count as confirmed.
        while (duplicate := self._in_flight.get(message_id)) is not None:
            await asyncio.wait({duplicate})
        done = self._in_flight[message_id] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._in_flight[message_id]
            done.set_result(None)

    async def _keep_connected(self) -> None:
        attempt = 0
        while True:
            try:
                with connection_faults():
                    session = await self._open()
            except Exception as error:  # noqa: BLE001 - see report
                if attempt == 0:
                    report(log, "broker.unreachable", error)
                await asyncio.sleep(_RECONNECT_SECONDS[min(attempt, len(_RECONNECT_SECONDS) - 1)])
                attempt += 1
                continue
            attempt = 0
            self._session = session
            self._ready.set()
            CONNECTED.set(1)
            log.info("broker.connected")
            await session.lost.wait()
            self._ready.clear()
            self._session = None
            CONNECTED.set(0)
            log.warning("broker.lost")
            await session.close()

    async def _open(self) -> Session:
        publishing = await self._connection("publish")
        try:
            consuming = await self._connection("consume")
        except BaseException:
            await publishing.close()
            raise
        session = Session(publishing, consuming)
        try:
            self._undeclared |= self._steps.keys()
            await self._declare(session)
        except BaseException:
            await session.close()
            raise
        return session

    async def _connection(self, purpose: str) -> AbstractConnection:
        return await aio_pika.connect(
            self._url,
            timeout=CONNECT_SECONDS,
            client_properties={"connection_name": f"{self.name} {purpose}"},
            heartbeat=HEARTBEAT_SECONDS,
            connection_class=_Connection,
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
                    with connection_faults():
                        await self._declare(session)
                except Exception as error:  # noqa: BLE001 - see report
                    report(log, "broker.not_declared", error)

    async def _declare(self, session: Session) -> None:
        """Declare each item separately: a refusal closes the channel but affects no other item.

        Bindings come last: a killed RabbitMQ loses the messages of a queue younger than a second,
        unless something was declared after it (docs/decisions/0002-messaging.md).
        """
        async with self._declaring:
            channel: AbstractChannel | None = None
            steps = self._steps.items()
            for name, step in sorted(steps, key=lambda item: isinstance(item[1], _Bind)):
                if name not in self._undeclared:
                    continue
                if channel is None or channel.is_closed:
                    channel = await open_channel(session.consuming)
                try:
                    await _declare_step(channel, step)
                except aiormq.exceptions.AMQPChannelError as error:
                    if self._refused.get(name) != repr(error):
                        self._refused[name] = repr(error)
                        log.error("broker.declare_refused", item=name, error=repr(error))  # noqa: TRY400
                else:
                    self._undeclared.discard(name)
                    self._refused.pop(name, None)
            if channel is not None and not channel.is_closed:
                await channel.close()


async def _declare_step(channel: AbstractChannel, step: _Step) -> None:
    match step:
        case Exchange():
            await channel.declare_exchange(step.name, step.kind, durable=True, timeout=CALL_SECONDS)
        case Queue():
            await channel.declare_queue(
                step.name, durable=True, arguments=dict(step.arguments), timeout=CALL_SECONDS
            )
        case _Bind():
            queue = await channel.get_queue(step.queue, ensure=False)
            await queue.bind(step.binding.exchange.name, step.binding.key, timeout=CALL_SECONDS)
