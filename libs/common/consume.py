"""One delivery → one outcome. The only place that acknowledges.

The crash policy: a message is acknowledged after its handler has returned, never before. Whatever
dies in between (process, connection, broker), the message comes again, so handlers are idempotent
or write into the inbox. An acknowledgement itself may be lost (it is bytes written, nothing is
answered): then, too, the message comes again.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, cast

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage
from opentelemetry.trace import SpanKind
from prometheus_client import Counter
from pydantic import ValidationError

from libs.common import db, logs, tasks, tracing
from libs.common.acks import Acks
from libs.common.broker import (
    CALL_SECONDS,
    FAULTS,
    REQUEST_ID,
    Broker,
    Message,
    PublishError,
    Session,
    Unroutable,
    connection_faults,
    open_channel,
    report,
)
from libs.common.topology import Queue, dead_name

log = logs.get_logger(__name__)

REASON = "x-reason"
DRAIN_SECONDS = 20.0
_AGAIN_SECONDS = 1.0
_UNAVAILABLE_SECONDS = (0.5, 1.0, 2.0, 5.0)
# Of a channel's only consumer. A name that aiormq makes up comes with RabbitMQ's answer, which a
# stop may miss; a consumer that is not cancelled gets messages after its channel's last frame, and
# to give one back then costs the connection.
_TAG = "only"

CONSUMED = Counter("consumed_total", "Deliveries by their outcome", ["queue", "outcome"])


@dataclass(frozen=True)
class Ack:
    """Done."""


@dataclass(frozen=True)
class Retry:
    """Into `.retry`; it comes back after that queue's TTL and counts as a death."""

    reason: str


@dataclass(frozen=True)
class Dead:
    """Into `.dead` with the reason, for a person to look at."""

    reason: str


def malformed(error: ValidationError) -> Dead:
    """Tell no more of it: what is wrong may be a person's."""
    return Dead(f"malformed: {error.error_count()} faults")


@dataclass(frozen=True)
class Requeue:
    """Back to its place in the queue, at once and for any consumer. No death.

    The queue's delivery limit counts it: beyond it the message is rejected as by Retry.
    """


Outcome = Ack | Retry | Dead | Requeue


@dataclass(frozen=True)
class Delivery:
    redelivered: bool
    """It may have been delivered before; always so after a death."""
    death_count: int
    """How often this queue rejected it, counted by the broker."""


Handler = Callable[[Message, Delivery], Awaitable[Outcome]]


class Undecodable(Exception):  # noqa: N818 - reads as what happened
    """Not a message of ours."""


class _Lane:
    """A channel with one consumer, and the deliveries in hand that only it can acknowledge."""

    def __init__(self, channel: AbstractChannel, acks: Acks) -> None:
        self.channel = channel
        self.acks = acks
        self.ended = asyncio.Event()
        self.cancelled = asyncio.Event()  # the broker sends no more
        self.in_hand: set[asyncio.Task[None]] = set()
        self.taking = True

    def end(self, *_: object) -> None:
        self.taking = False
        self.ended.set()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.in_hand.add(task)
        task.add_done_callback(self.in_hand.discard)


class Consumer:
    """Use `consume`."""

    def __init__(
        self, broker: Broker, queue: Queue, handler: Handler, *, prefetch: int, max_retries: int
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._handler = handler
        self._full_prefetch = self._prefetch = prefetch
        self._max_retries = max_retries
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._lane: _Lane | None = None
        self._lanes: set[_Lane] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._counts = {
            outcome: CONSUMED.labels(queue.name, outcome.__name__.lower())
            for outcome in (Ack, Retry, Dead, Requeue)
        }
        self._span_name = f"process {queue.name}"
        self._outlasting = False  # one message in hand waits for the database
        self._held = False  # and for that reason no more are taken

    @property
    def consuming(self) -> bool:
        return self._lane is not None and self._lane.taking

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"consume {self._queue.name}")

    async def pause(self) -> None:
        """Take no more from now on; what is in hand is finished."""
        self._held = False
        self._stop_taking()

    async def resume(self, prefetch: int | None = None) -> None:
        """Take again.

        :param prefetch: at most so many at a time (1 tries one message); None: all it may
        """
        self._held = False
        self._take(prefetch or self._full_prefetch)

    def _stop_taking(self) -> None:
        self._wanted.clear()
        self._change_lane()

    def _take(self, prefetch: int) -> None:
        if self._wanted.is_set() and prefetch == self._prefetch:
            return
        self._prefetch = prefetch
        self._wanted.set()
        self._change_lane()

    async def close(self) -> None:
        """Take no more, finish what is in hand within DRAIN_SECONDS; the rest comes again."""
        self._closing.set()
        await self.pause()
        if self._task is not None:
            await tasks.end(self._task)
        in_hand = {task for lane in self._lanes for task in lane.in_hand}
        if in_hand:
            _, unfinished = await asyncio.wait(in_hand, timeout=DRAIN_SECONDS)
            if unfinished:
                log.warning("consume.abandoned", queue=self._queue.name, count=len(unfinished))
            await tasks.end(*unfinished)
        if self._retiring:
            await asyncio.wait(self._retiring)

    def _change_lane(self) -> None:
        if self._lane is not None:
            self._lane.end()

    async def _run(self) -> None:
        # This loop is the watchdog: whatever ends a lane (connection, channel, the broker's own
        # cancel because the queue was deleted), the next one is opened.
        while True:
            await self._wanted.wait()
            session = await self._broker.session()
            try:
                with connection_faults():
                    await self._consume(session)
            except Exception as error:  # noqa: BLE001 - see report
                report(log, "consume.failed", error, queue=self._queue.name)
                self._broker.declare_again()
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _consume(self, session: Session) -> None:
        channel = await open_channel(session.consuming)
        underlay = await channel.get_underlay_channel()
        lane = _Lane(channel, Acks(underlay))
        channel.close_callbacks.add(lane.end)
        underlay.on_consumer_cancel_callbacks.add(lane.end)
        self._lane = lane
        self._lanes.add(lane)
        try:
            # Before consuming: without it the broker sends the whole queue at once.
            await channel.set_qos(prefetch_count=self._prefetch, timeout=CALL_SECONDS)

            async def deliver(incoming: DeliveredMessage) -> None:
                # A task of its own: aiormq cancels its own when the channel is lost, and a handler
                # must not be interrupted half-way by that.
                lane.run(self._handle(lane, incoming))

            # aio-pika's own `consume` would put one more task around each delivery.
            await underlay.basic_consume(
                self._queue.name, deliver, consumer_tag=_TAG, timeout=CALL_SECONDS
            )
            await lane.ended.wait()
        finally:
            lane.end()
            self._lane = None
            task = asyncio.create_task(self._retire(lane))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retire(self, lane: _Lane) -> None:
        with suppress(*FAULTS), connection_faults():
            if not lane.channel.is_closed:
                underlay = await lane.channel.get_underlay_channel()
                await underlay.basic_cancel(_TAG, timeout=CALL_SECONDS)
        lane.cancelled.set()
        while lane.in_hand:
            await asyncio.wait(lane.in_hand)
        with suppress(*FAULTS), connection_faults():
            async with asyncio.timeout(CALL_SECONDS):
                await lane.channel.close()
        self._lanes.discard(lane)

    async def _handle(self, lane: _Lane, incoming: DeliveredMessage) -> None:
        try:
            await self._see_to(lane, incoming)
        except Exception:
            # Of headers that make no sense, say. Unanswered it would be in hand for ever.
            log.exception("consume.failed_on", queue=self._queue.name)
            await self._settle(lane, incoming, Retry("not understood"))

    async def _see_to(self, lane: _Lane, incoming: DeliveredMessage) -> None:
        if not lane.taking:
            # Not before the consumer is cancelled: it would get the message again and again.
            await lane.cancelled.wait()
            await self._settle(lane, incoming, Requeue())
            return
        deaths = _death_count(incoming, self._queue.name)
        if self._worn_out(incoming, deaths):
            await self._settle(lane, incoming, self._retry_or_dead("delivery limit", deaths))
            return
        try:
            message = _decode(incoming)
        except Undecodable as error:
            await self._settle(lane, incoming, Dead(f"undecodable: {error}"))
            return
        token = logs.request_id.set(message.request_id)
        try:
            delivery = Delivery(bool(incoming.redelivered), deaths)
            with tracing.span(SpanKind.CONSUMER, self._span_name, message.headers) as span:
                outcome = await self._outcome(lane, message, delivery)
                span.set_attribute("outcome", type(outcome).__name__.lower())
            await self._settle(lane, incoming, outcome)
        finally:
            logs.request_id.reset(token)

    async def _outcome(self, lane: _Lane, message: Message, delivery: Delivery) -> Outcome:
        if (outcome := await self._try(message, delivery)) is not None:
            return outcome
        if self._wanted.is_set():
            self._held = True
            self._stop_taking()
        # One stays in hand, the others go back: each return is counted, and in an outage of hours
        # the count would bury what nothing is wrong with.
        return Requeue() if self._outlasting else await self._outlast(lane, message, delivery)

    async def _try(self, message: Message, delivery: Delivery) -> Outcome | None:
        """Handle the message; None when the database is away."""
        try:
            with connection_faults():  # of any driver: unguarded, nobody would ever settle it
                return await self._handler(message, delivery)
        except Exception as error:
            if db.is_unavailable(error):
                return None
            if db.may_pass(error):  # not counted: it is not the message that is at fault
                return Retry(type(error).__name__)
            log.exception(
                "consume.handler_failed",
                queue=self._queue.name,
                message_id=message.id,
                deaths=delivery.death_count,
            )
            return self._retry_or_dead(type(error).__name__, delivery.death_count)

    async def _outlast(self, lane: _Lane, message: Message, delivery: Delivery) -> Outcome:
        """Try until the database is back, then take again."""
        log.warning("consume.database_unavailable", queue=self._queue.name)
        self._outlasting = True
        waits = chain(_UNAVAILABLE_SECONDS, repeat(_UNAVAILABLE_SECONDS[-1]))
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(next(waits)):
                        await self._closing.wait()
                if self._closing.is_set() or lane.channel.is_closed:
                    return Requeue()
                if (outcome := await self._try(message, delivery)) is not None:
                    return outcome
        finally:
            self._outlasting = False
            if self._held:
                self._held = False
                self._take(self._prefetch)

    def _worn_out(self, incoming: DeliveredMessage, deaths: int) -> bool:
        # At the first delivery after a rejection RabbitMQ 4.0 tells all the deaths and lost
        # connections so far, at every other the returns since then. On one that was never delivered
        # here a count is of the `.dead` from which it was moved: so often was it looked at there.
        returns = _headers(incoming).get("x-delivery-count", 0)
        limit = self._queue.delivery_limit
        if limit is None or not incoming.redelivered or not isinstance(returns, int):
            return False
        return returns - deaths > limit

    def _retry_or_dead(self, reason: str, deaths: int) -> Outcome:
        return Retry(reason) if deaths < self._max_retries else Dead(reason)

    async def _settle(self, lane: _Lane, incoming: DeliveredMessage, outcome: Outcome) -> None:
        self._counts[type(outcome)].inc()
        channel, tag = incoming.channel, cast("int", incoming.delivery_tag)
        with self._channel_may_be_gone():
            if isinstance(outcome, Dead):
                outcome = await self._bury(incoming, outcome.reason)
            # Nothing waits until the bytes are out: nobody answers them.
            match outcome:
                case Ack():
                    if lane.acks.add(tag):
                        lane.run(self._acknowledge(lane))
                    return
                case Requeue():
                    await channel.basic_nack(tag, requeue=True, wait=False)
                case Retry(reason):
                    log.info("consume.retry", queue=self._queue.name, reason=reason)
                    await channel.basic_reject(tag, requeue=False, wait=False)
            lane.acks.settled(tag)

    async def _acknowledge(self, lane: _Lane) -> None:
        with self._channel_may_be_gone():
            await lane.acks.write()

    @contextmanager
    def _channel_may_be_gone(self) -> Iterator[None]:
        try:
            with connection_faults():
                yield
        except FAULTS as error:  # so the broker delivers it again
            log.warning("consume.not_settled", queue=self._queue.name, error=repr(error))

    async def _bury(self, incoming: DeliveredMessage, reason: str) -> Outcome:
        found = incoming.header.properties
        log.error(
            "consume.dead",
            queue=self._queue.name,
            message_id=found.message_id,
            type=found.message_type,
            reason=reason,
        )
        corpse = aio_pika.Message(
            incoming.body,
            message_id=found.message_id or str(uuid.uuid4()),
            type=found.message_type,
            content_type=found.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            app_id=found.app_id,
            timestamp=found.timestamp,
            headers={**_own_headers(incoming), REASON: reason},
        )
        dlx, key = self._queue.dlx, dead_name(self._queue.name)
        try:
            if dlx is None:
                raise Unroutable(f"{self._queue.name} has no .dead")
            await self._broker.send(dlx.name, key, corpse, timeout=CALL_SECONDS)
        except PublishError as error:  # it comes back by way of `.retry`
            log.warning("consume.not_buried", queue=self._queue.name, error=repr(error))
            return Retry("not buried")
        return Ack()


@asynccontextmanager
async def consume(
    broker: Broker,
    queue: str | Queue,
    handler: Handler,
    *,
    prefetch: int,
    max_retries: int = 10,
) -> AsyncIterator[Consumer]:
    """Consume for as long as the context is open, whatever happens to the broker meanwhile.

    :param queue: a work queue that was declared with `broker.declare`
    :param prefetch: how many are in hand at a time
    :param max_retries: so many unexpected exceptions of the handler are retried, then `.dead`
    """
    declared = broker.queues[queue if isinstance(queue, str) else queue.name]
    consumer = Consumer(broker, declared, handler, prefetch=prefetch, max_retries=max_retries)
    consumer.start()
    try:
        yield consumer
    finally:
        await consumer.close()


def _headers(incoming: DeliveredMessage) -> Mapping[str, Any]:
    return incoming.header.properties.headers or {}


def _own_headers(incoming: DeliveredMessage) -> dict[str, Any]:
    # x-death and its kin are the broker's; from a client it ignores them.
    return {
        name: value
        for name, value in _headers(incoming).items()
        if not name.startswith(("x-death", "x-first-death", "x-last-death", "x-delivery-count"))
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
        raise Undecodable("no message id or no type")
    try:
        body = _JSON.decode(incoming.body.decode())
    except (ValueError, RecursionError) as error:
        raise Undecodable("no JSON") from error
    if not isinstance(body, dict):
        raise Undecodable("no JSON object")
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
    )


def _refuse(constant: str) -> None:
    raise ValueError(constant)


_JSON = json.JSONDecoder(parse_constant=_refuse)
