"""The broker: connected in the background, topology on each connection, confirmed publishes.

Two connections: RabbitMQ stops reading from one that publishes while it has an alarm (disk,
memory), and acknowledgements on the same socket would wait with the publishes. They live and die
together; whatever was on them is the business of `publish` (Unconfirmed) and of `consume` (comes
again).
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, HeadersType
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from prometheus_client import Counter, Gauge

from libs.common import logs, tasks, tracing
from libs.common.topology import Binding, Exchange, Queue

log = logs.get_logger(__name__)

REQUEST_ID = "x-request-id"
CONNECT_SECONDS = 5.0
CALL_SECONDS = 5.0
HEARTBEAT_SECONDS = 10
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


# aio-pika 10.2 registers each channel on its connection's `closing` and takes it away when the
# channel is closed. aiormq 7.2 gives another future at each look, all of which the connection
# keeps: every channel that was ever open would stay in memory (a test counts them).
setattr(aiormq.Connection, "closing", property(lambda connection: connection._closing))  # noqa: B010, SLF001


class PublishError(Exception):
    """The message was not confirmed."""


class Unroutable(PublishError):  # noqa: N818 - reads as what happened
    """The broker refused it: no such exchange, no queue bound, or no right. Nobody has it."""


class BrokerUnavailable(PublishError):  # noqa: N818 - reads as what happened
    """Not connected or blocked: certainly not taken."""


class Unconfirmed(PublishError):  # noqa: N818 - reads as what happened
    """The outcome is unknown: it may have been taken."""


@dataclass(frozen=True)
class Message:
    id: str
    type: str
    body: Mapping[str, Any]
    request_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    expiration: float | None = None
    """Seconds; only for a queue without dead-lettering (topology.request_queue)."""
    headers: Mapping[str, Any] = field(default_factory=dict)


def message(type: str, body: Mapping[str, Any], **properties: Any) -> Message:  # noqa: A002 - AMQP's name
    """Make a message with an id of its own and the current request's id."""
    properties.setdefault("request_id", logs.request_id.get())
    return Message(str(uuid.uuid4()), type, body, **properties)


@contextmanager
def connection_faults() -> Iterator[None]:
    """Tell a lost connection from being cancelled.

    aiormq ends what waits on a lost channel with CancelledError: unguarded, a worker dies as if
    its service were stopping.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("the connection to the broker was lost") from error


def report(log: logs.Logger, event: str, error: Exception, **values: object) -> None:
    """Log a fault of a loop whose cure for any fault is to begin again.

    It must not die of what nobody has foreseen: nothing would tell that a queue has no consumer.
    """
    log.warning(event, error=repr(error), exc_info=not isinstance(error, FAULTS), **values)


async def open_channel(connection: AbstractConnection) -> AbstractChannel:
    """Open a channel that does not confirm; in time, which aio-pika's own argument does not do."""
    channel = connection.channel(publisher_confirms=False)
    async with asyncio.timeout(CALL_SECONDS):
        await channel.initialize()
    return channel


class _Door:
    """Where messages to one exchange leave."""

    def __init__(self, exchange: str) -> None:
        self.lock = asyncio.Lock()
        self.channel: AbstractChannel | None = None
        self.proven = False
        self._exchange = exchange
        self._undrained = 0

    async def publish(self, message: aio_pika.Message, routing_key: str) -> None:
        """Return when it is confirmed.

        aio-pika's own `publish` waits for each message's bytes to be out before it takes the next:
        no more than one leaves in a turn of the loop. Here only that waits which would let more
        than DRAIN_BYTES pile up.
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


class Session:
    """One pair of connections, from connecting to the loss of either."""

    def __init__(self, publishing: AbstractConnection, consuming: AbstractConnection) -> None:
        self.consuming = consuming
        self.lost = asyncio.Event()
        self.blocked = False
        self.waiting: set[asyncio.Timeout] = set()
        self._publishing = publishing
        self._doors: dict[str, _Door] = {}
        for connection in (publishing, consuming):
            connection.close_callbacks.add(self._on_close)
            if not connection.connected.is_set():
                self.lost.set()
        # aiormq tells nobody that it is blocked. A test notices when these names move.
        inside: Any = publishing.transport and publishing.transport.connection
        inside._Connection__handle_connection_blocked = self._on_blocked  # noqa: SLF001
        inside._Connection__handle_connection_unblocked = self._on_unblocked  # noqa: SLF001

    def _on_close(self, *_: object) -> None:
        self.lost.set()

    async def _on_blocked(self, frame: aiormq.spec.Connection.Blocked) -> None:
        log.warning("broker.blocked", reason=frame.reason)
        self.blocked = True
        # RabbitMQ says so when it gets a publish, and confirms nothing until the alarm is over.
        for timeout in self.waiting:
            if not timeout.expired():
                timeout.reschedule(0)

    async def _on_unblocked(self, _: aiormq.spec.Connection.Unblocked) -> None:
        log.info("broker.unblocked")
        self.blocked = False

    @asynccontextmanager
    async def publisher(self, exchange: str) -> AsyncIterator[_Door]:
        """Give an exchange a confirming channel of its own.

        Publishing to an exchange that is missing or forbidden closes the channel and leaves all
        that is in flight on it unconfirmed: that must not touch other exchanges' messages. Worse,
        aiormq writes on after the channel was closed, and RabbitMQ then closes the connection: so
        the first publish on a channel goes alone.
        """
        door = self._doors.setdefault(exchange, _Door(exchange))
        async with door.lock:
            if door.channel is None or door.channel.is_closed:
                door.proven = False
                door.channel = self._publishing.channel(
                    publisher_confirms=True, on_return_raises=True
                )
                await door.channel.initialize()
            if not door.proven:
                try:
                    yield door
                except aiormq.exceptions.PublishError:  # it exists, only no queue took it
                    door.proven = True
                    raise
                door.proven = True
                return
        yield door

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

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, name: str) -> AsyncIterator["Broker"]:
        """Keep connected for as long as the context is open; RabbitMQ may be away at any time."""
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
        """Whether RabbitMQ takes no messages for want of disk or memory."""
        return self._session is not None and self._session.blocked

    @property
    def refused(self) -> Mapping[str, str]:
        """What could not be declared, and why; it is tried again all the time."""
        return self._refused

    async def session(self) -> Session:
        """Wait for a connection whose topology is declared."""
        while True:
            await self._ready.wait()
            if (session := self._session) is not None and not session.lost.is_set():
                return session
            await asyncio.sleep(0)

    async def declare(self, *items: Exchange | Queue) -> None:
        """Declare now, if connected, and on each connection; what is refused is tried again."""
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
        """Declare a queue on this connection and no other: that it is gone will tell something.

        :raises BrokerUnavailable: not connected, or lost meanwhile
        """
        async with self._asking() as channel:
            await _declare_step(channel, queue)

    def declare_again(self) -> None:
        """Something declared is missing (deleted by hand, say): declare everything soon."""
        self._undeclared |= self._steps.keys()
        self._declare_soon.set()

    async def depth(self, queue: str) -> int | None:
        """Count the messages that are ready in a queue; None when there is no such queue.

        :raises BrokerUnavailable: not connected, or lost meanwhile
        """
        async with self._asking() as channel:
            try:
                found = await channel.declare_queue(queue, passive=True, timeout=CALL_SECONDS)
            except aiormq.exceptions.ChannelNotFoundEntity:
                return None
            return found.declaration_result.message_count

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[AbstractChannel]:
        """Give a channel of its own: what the broker refuses closes it."""
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
        """Return when the broker has the message on disk in each queue it was routed to.

        :raises Unroutable: no queue took it
        :raises BrokerUnavailable: not connected or blocked, certainly not taken
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
        """Make what is sent of a message; `body` is its JSON, `headers` are all of them."""
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
        """Publish as `publish` does what is a message already."""
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
        handed_over = False
        async with self._alone(str(message.message_id)):
            try:
                with connection_faults():
                    async with (
                        asyncio.timeout_at(deadline) as waiting,
                        session.publisher(exchange) as door,
                    ):
                        if session.blocked:  # meanwhile
                            raise BrokerUnavailable
                        session.waiting.add(waiting)
                        handed_over = True
                        try:
                            await door.publish(message, routing_key)
                        finally:
                            session.waiting.discard(waiting)
            except (
                aiormq.exceptions.PublishError,
                aiormq.exceptions.ChannelNotFoundEntity,
                aiormq.exceptions.ChannelAccessRefused,
            ) as error:
                self.declare_again()
                raise Unroutable(f"{exchange} {routing_key}: {error!r}") from error
            except FAULTS as error:
                outcome = Unconfirmed if handed_over else BrokerUnavailable
                raise outcome(f"{exchange} {routing_key}: {error!r}") from error

    @asynccontextmanager
    async def _alone(self, message_id: str) -> AsyncIterator[None]:
        # aiormq tells a returned message by its message id: with two of one id in flight the
        # return of the first would fail the second, and the first would count as taken.
        while (twin := self._in_flight.get(message_id)) is not None:
            await asyncio.wait({twin})
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
        )

    async def _keep_declared(self) -> None:
        # Everything once a minute: nobody hears of a deleted `.retry`, and what is rejected
        # meanwhile waits for it.
        clock = asyncio.get_running_loop().time
        declare_all = clock() + _DECLARE_ALL_SECONDS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DECLARE_AGAIN_SECONDS):
                    await self._declare_soon.wait()
                    # No storm when every publish of a thousand finds its queue missing.
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
        """Do each step by itself: one that is refused closes the channel, and no other fails.

        Bindings last: RabbitMQ forgets the messages of a queue that is younger than a second when
        it is killed, unless another was declared after it (docs/decisions/0002-messaging.md).
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
