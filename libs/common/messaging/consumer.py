"""Consumers: one delivery, one disposition. Only this module decides how a message is acknowledged.

A message is acknowledged after its handler has returned, never before. If the process, connection
or broker dies in between, or the acknowledgement is lost, the message is redelivered: handlers are
idempotent or use the inbox.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage
from opentelemetry.trace import SpanKind
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, ValidationError

from libs.common.database import postgres
from libs.common.messaging import session as amqp
from libs.common.messaging.acks import Acks
from libs.common.messaging.broker import REQUEST_ID, Broker, Message, PublishError, Unroutable
from libs.common.messaging.topology import Queue, dead_name, retry_name
from libs.common.process import logs, tasks, tracing
from libs.common.process.logs import log
from libs.common.process.metrics import SHARED

M = TypeVar("M", bound=BaseModel)

REASON = "x-reason"
FAILURES = "x-failures"
DRAIN_SECONDS = 20.0
IN_FLIGHT_BYTES = 4 * 1024 * 1024
"""Bodies in a consumer's handlers, which need about thirty times as much; one may be larger."""
_RETRY_SECONDS = 1.0
# About a minute in all: RabbitMQ closes a channel with a message unacknowledged for 30 minutes.
_DATABASE_SECONDS = (0.5, 1.0, 2.0, *[5.0] * 11)
# A fixed tag for a channel's only consumer. A generated tag arrives with RabbitMQ's reply, which a
# stop may miss. A consumer that is not cancelled gets messages after its channel's last frame, and
# returning one then costs the connection.
_TAG = "only"

CONSUMED = SHARED.counter("broker_consumed_total")


@dataclass(frozen=True)
class Ack:
    """Done."""


@dataclass(frozen=True)
class Retry:
    """To `.retry`; it returns after that queue's TTL, any number of times."""

    reason: str


@dataclass(frozen=True)
class Dead:
    """To `.dead` with the reason, for an operator."""

    reason: str


@dataclass(frozen=True)
class Requeue:
    """Back to its position in the queue, immediately and for any consumer.

    It counts against the queue's delivery limit; above that, the message is rejected as by Retry.
    """


Disposition = Ack | Retry | Dead | Requeue


@dataclass(frozen=True)
class _Failed(Retry):
    """Like Retry, but the failure is counted in a header of the message."""

    count: int


Handler = Callable[[Message], Awaitable[Disposition]]


class Unreadable(Exception):  # noqa: N818 - reads as what happened
    """Not one of our messages, or not for this queue; raised by a handler, it goes to `.dead`."""


class Body(BaseModel):
    """Of a message. Unknown fields are ignored: its sender may be newer."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


def read(message: Message, model: type[M], type_: str | None = None) -> M:
    """Parse the body.

    :param type_: the required message type
    :raises Unreadable: the handler need not catch it
    """
    if type_ is not None and message.type != type_:
        raise Unreadable("unknown type")
    try:
        return model.model_validate(message.body)
    except ValidationError as error:  # no values: they may be personal data
        raise Unreadable(f"malformed: {error.error_count()} faults") from None


class _Subscription:
    """A channel with one consumer, and the deliveries in flight that only it can acknowledge."""

    def __init__(self, channel: AbstractChannel, acks: Acks) -> None:
        self.channel = channel
        self.acks = acks
        self.ended = asyncio.Event()
        self.cancelled = asyncio.Event()  # the broker sends no more
        self.in_flight: set[asyncio.Task[None]] = set()

    @property
    def taking(self) -> bool:
        return not self.ended.is_set()

    def end(self, *_: object) -> None:
        self.ended.set()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.in_flight.add(task)
        task.add_done_callback(self.in_flight.discard)


class Consumer:
    """Consumes while its context is open, across losses of the broker."""

    def __init__(
        self,
        broker: Broker,
        queue: str | Queue,
        handler: Handler,
        *,
        prefetch: int,
        max_retries: int = 10,
    ) -> None:
        """:param queue: a work queue that was declared with `broker.declare`
        :param prefetch: maximum number of messages in flight
        :param max_retries: unexpected exceptions of the handler before the message goes to `.dead`
        """
        queue = broker.queues[queue if isinstance(queue, str) else queue.name]
        self._broker = broker
        self._queue = queue
        self._handler = handler
        self._full_prefetch = self._prefetch = prefetch
        self._max_retries = max_retries
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._subscription: _Subscription | None = None
        self._subscriptions: set[_Subscription] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._closing = False
        self._bytes = 0
        self._next = asyncio.Lock()
        self._room = asyncio.Event()
        self._counts: dict[type[Disposition], Counter] = {
            outcome: CONSUMED.labels(queue.name, outcome.__name__.lower())
            for outcome in (Ack, Retry, Dead, Requeue)
        }
        self._counts[_Failed] = self._counts[Retry]
        self._span_name = f"process {queue.name}"

    @property
    def consuming(self) -> bool:
        return self._subscription is not None and self._subscription.taking

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"consume {self._queue.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()
        if self._task is not None:
            await tasks.end(self._task)
        if self._retiring:
            await asyncio.wait(self._retiring)

    async def pause(self) -> None:
        """Stop taking messages; finish those in flight."""
        self._wanted.clear()
        self._end_subscription()

    async def resume(self, prefetch: int | None = None) -> None:
        """Take messages again, unless closing.

        :param prefetch: how many at a time (1 tries one message); None: the full prefetch
        """
        prefetch = prefetch or self._full_prefetch
        if self._closing or (self._wanted.is_set() and prefetch == self._prefetch):
            return
        self._prefetch = prefetch
        self._wanted.set()
        self._end_subscription()

    async def drain(self) -> None:
        """Stop taking messages; finish those in flight within DRAIN_SECONDS, or abandon them."""
        self._closing = True
        await self.pause()
        in_flight = {
            task for subscription in self._subscriptions for task in subscription.in_flight
        }
        if in_flight:
            _, unfinished = await asyncio.wait(in_flight, timeout=DRAIN_SECONDS)
            if unfinished:
                log.warning("consumer.abandoned", queue=self._queue.name, count=len(unfinished))
            await tasks.end(*unfinished)

    def _end_subscription(self) -> None:
        if self._subscription is not None:
            self._subscription.end()

    async def _run(self) -> None:
        # This loop reopens a subscription whatever ended it: the connection, the channel, or the
        # broker's cancel after the queue was deleted.
        while True:
            await self._wanted.wait()
            session = await self._broker.session()
            try:
                with amqp.connection_faults():
                    await self._consume(session)
            except Exception as error:  # noqa: BLE001 - see report
                amqp.report(log, "consume.failed", error, queue=self._queue.name)
                self._broker.declare_again()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _consume(self, session: amqp.Session) -> None:
        channel = await amqp.open_channel(session.consuming)
        underlay = await channel.get_underlay_channel()
        subscription = _Subscription(channel, Acks(underlay))
        channel.close_callbacks.add(subscription.end)
        underlay.on_consumer_cancel_callbacks.add(subscription.end)
        self._subscription = subscription
        self._subscriptions.add(subscription)
        if not self._wanted.is_set():  # paused while the channel was opened
            subscription.end()
        try:
            # Before consuming: otherwise the broker sends the whole queue at once.
            await channel.set_qos(prefetch_count=self._prefetch, timeout=amqp.CALL_SECONDS)

            async def deliver(incoming: DeliveredMessage) -> None:
                # In its own task: aiormq cancels its tasks when the channel is lost, and that must
                # not interrupt a handler.
                subscription.run(self._handle(subscription, incoming))

            # aio-pika's `consume` would add another task per delivery.
            await underlay.basic_consume(
                self._queue.name, deliver, consumer_tag=_TAG, timeout=amqp.CALL_SECONDS
            )
            await subscription.ended.wait()
        finally:
            subscription.end()
            self._subscription = None
            task = asyncio.create_task(self._retire(subscription))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retire(self, subscription: _Subscription) -> None:
        with suppress(*amqp.FAULTS), amqp.connection_faults():
            if not subscription.channel.is_closed:
                underlay = await subscription.channel.get_underlay_channel()
                await underlay.basic_cancel(_TAG, timeout=amqp.CALL_SECONDS)
        subscription.cancelled.set()
        while subscription.in_flight:
            await asyncio.wait(subscription.in_flight)
        await amqp.close(subscription.channel)
        self._subscriptions.discard(subscription)

    async def _handle(self, subscription: _Subscription, incoming: DeliveredMessage) -> None:
        try:
            async with self._room_for(len(incoming.body)):
                await self._process(subscription, incoming)
        except Exception:
            # For example malformed headers. Without a disposition it would stay in flight forever.
            log.exception("consumer.message_failed", queue=self._queue.name)
            await self._apply(subscription, incoming, Retry("not understood"))

    @asynccontextmanager
    async def _room_for(self, size: int) -> AsyncIterator[None]:
        """Wait until the bodies being handled, parsed and copied, leave room for one more."""
        async with self._next:  # in order: otherwise a large one might wait forever
            while self._bytes and self._bytes + size > IN_FLIGHT_BYTES:
                self._room.clear()
                await self._room.wait()
            self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size
            self._room.set()

    async def _process(self, subscription: _Subscription, incoming: DeliveredMessage) -> None:
        if not subscription.taking:
            await self._apply(subscription, incoming, Requeue())
            return
        deaths = _death_count(incoming, self._queue.name)
        if self._over_delivery_limit(incoming, deaths):
            reason = "delivery limit"
            again = deaths < self._max_retries
            await self._apply(subscription, incoming, Retry(reason) if again else Dead(reason))
            return
        try:
            message = _decode(incoming)
        except Unreadable as error:
            await self._apply(subscription, incoming, Dead(str(error)))
            return
        token = logs.request_id.set(message.request_id)
        try:
            with tracing.span(SpanKind.CONSUMER, self._span_name, message.headers) as span:
                outcome = await self._outcome(subscription, incoming, message)
                span.set_attribute("outcome", type(outcome).__name__.lower())
            await self._apply(subscription, incoming, outcome)
        finally:
            logs.request_id.reset(token)

    async def _outcome(
        self, subscription: _Subscription, incoming: DeliveredMessage, message: Message
    ) -> Disposition:
        """Handle the message; while the database is unavailable, wait here and try again.

        The prefetch bounds how many wait, and a wait does not count as a failure of the message.
        """
        for number, seconds in enumerate(_DATABASE_SECONDS):
            try:
                with (
                    amqp.connection_faults()
                ):  # of any driver: unguarded, it would never be acknowledged
                    return await self._handler(message)
            except Unreadable as error:
                return Dead(str(error))
            except Exception as error:
                reason = type(error).__name__
                if not postgres.is_transient(error):
                    log.exception(
                        "consumer.handler_failed", queue=self._queue.name, message_id=message.id
                    )
                    return self._failed(incoming, reason)
            if number == 0:
                log.warning("consumer.database_unavailable", queue=self._queue.name, error=reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await subscription.ended.wait()
            if not subscription.taking:
                return Requeue()
        return Retry("database")

    def _failed(self, incoming: DeliveredMessage, reason: str) -> Disposition:
        """Count the failure in our own header: the broker counts every rejection, even a Retry."""
        before = _headers(incoming).get(FAILURES, 0)
        count = before + 1 if isinstance(before, int) else 1
        return _Failed(reason, count) if count <= self._max_retries else Dead(reason)

    def _over_delivery_limit(self, incoming: DeliveredMessage, deaths: int) -> bool:
        # At the first delivery after a rejection, RabbitMQ 4.0 counts all deaths and lost
        # connections so far; at later deliveries, the returns since then. For a message that was
        # never delivered here, it counts how often it was read in the `.dead` it came from.
        returns = _headers(incoming).get("x-delivery-count", 0)
        limit = self._queue.delivery_limit
        if limit is None or not incoming.redelivered or not isinstance(returns, int):
            return False
        return returns - deaths > limit

    async def _apply(
        self, subscription: _Subscription, incoming: DeliveredMessage, disposition: Disposition
    ) -> None:
        self._counts[type(disposition)].inc()
        channel, tag = incoming.channel, cast("int", incoming.delivery_tag)
        with self._channel_may_be_gone():
            match disposition:
                case Dead(reason):
                    disposition = await self._dead_letter(incoming, reason)
                case _Failed(reason, count):
                    key = retry_name(self._queue.name)
                    disposition = await self._republish(incoming, key, reason, {FAILURES: count})
            # Do not wait for the flush: there is no reply.
            match disposition:
                case Ack():
                    if subscription.acks.add(tag):
                        subscription.run(self._acknowledge(subscription))
                    return
                case Requeue():
                    if not subscription.taking:  # before it is cancelled it would come again
                        await subscription.cancelled.wait()
                    await channel.basic_nack(tag, requeue=True, wait=False)
                case Retry(reason):
                    log.info("consumer.retry", queue=self._queue.name, reason=reason)
                    await channel.basic_reject(tag, requeue=False, wait=False)
            subscription.acks.rejected(tag)

    async def _acknowledge(self, subscription: _Subscription) -> None:
        with self._channel_may_be_gone():
            await subscription.acks.write()

    @contextmanager
    def _channel_may_be_gone(self) -> Iterator[None]:
        try:
            with amqp.connection_faults():
                yield
        except amqp.FAULTS as error:  # the broker redelivers it
            log.warning("consumer.not_acknowledged", queue=self._queue.name, error=repr(error))

    async def _dead_letter(self, incoming: DeliveredMessage, reason: str) -> Disposition:
        found = incoming.header.properties
        log.error(
            "consumer.dead_lettered",
            queue=self._queue.name,
            message_id=found.message_id,
            type=found.message_type,
            reason=reason,
        )
        key = dead_name(self._queue.name)
        body = b"{}" if self._queue.sent_again else None
        return await self._republish(incoming, key, reason, {REASON: reason}, body)

    async def _republish(
        self,
        incoming: DeliveredMessage,
        key: str,
        reason: str,
        headers: Mapping[str, Any],
        body: bytes | None = None,
    ) -> Disposition:
        """Publish it with more headers to another queue of this consumer, then acknowledge it.

        A crash in between leaves both, which the handler must tolerate like any duplicate.
        """
        found = incoming.header.properties
        moved = aio_pika.Message(
            incoming.body if body is None else body,
            message_id=found.message_id or str(uuid.uuid4()),
            type=found.message_type,
            content_type=found.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            app_id=found.app_id,
            timestamp=found.timestamp,
            priority=found.priority,
            headers={**_own_headers(incoming), **headers},
        )
        try:
            if self._queue.dlx is None:
                raise Unroutable(f"{self._queue.name} has no dead-letter exchange")
            await self._broker.publish(self._queue.dlx.name, key, moved, timeout=amqp.CALL_SECONDS)
        except PublishError as error:  # it returns unchanged by way of `.retry`
            log.warning("consumer.not_moved", queue=self._queue.name, to=key, error=repr(error))
            return Retry(reason)
        return Ack()


def _headers(incoming: DeliveredMessage) -> Mapping[str, Any]:
    return incoming.header.properties.headers or {}


def _own_headers(incoming: DeliveredMessage) -> dict[str, Any]:
    # The broker sets x-death and the like, and ignores them from a client. A dead letter that an
    # operator moves back starts with all its retries.
    brokers = ("x-death", "x-first-death", "x-last-death", "x-delivery-count", FAILURES)
    return {
        name: value for name, value in _headers(incoming).items() if not name.startswith(brokers)
    }


def _death_count(incoming: DeliveredMessage, queue: str) -> int:
    deaths: Any = _headers(incoming).get("x-death")
    return sum(
        int(death.get("count", 0))
        for death in (deaths if isinstance(deaths, list) else ())
        if isinstance(death, dict)
        and death.get("queue") == queue
        and death.get("reason") == "rejected"
    )


def _decode(incoming: DeliveredMessage) -> Message:
    found = incoming.header.properties
    if not found.message_id or not found.message_type:
        raise Unreadable("undecodable: no message id or no type")
    try:
        body = _JSON.decode(incoming.body.decode())
    except (ValueError, RecursionError) as error:
        raise Unreadable("undecodable: no JSON") from error
    if not isinstance(body, dict):
        raise Unreadable("undecodable: no JSON object")
    headers = _headers(incoming)
    request_id = headers.get(REQUEST_ID)
    return Message(
        id=found.message_id,
        type=found.message_type,
        body=body,
        request_id=request_id if isinstance(request_id, str) else None,
        reply_to=found.reply_to,
        correlation_id=found.correlation_id,
        headers=dict(headers),
        priority=found.priority,
        redelivered=bool(incoming.redelivered),
    )


def _refuse(constant: str) -> None:
    raise ValueError(constant)


_JSON = json.JSONDecoder(parse_constant=_refuse)
