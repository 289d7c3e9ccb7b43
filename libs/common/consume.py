"""One delivery → one typed outcome; nothing else in the code acknowledges."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import prometheus_client
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from libs.common import db, logs
from libs.common.broker import LOST, REQUEST_ID_HEADER, Broker, Message, PublishError
from libs.common.topology import dead_name

log = logs.get_logger(__name__)

MAX_RETRIES = 10
DRAIN_SECONDS = 20.0
WATCH_SECONDS = 5.0
UNAVAILABLE_SECONDS = 1.0
REASON_HEADER = "x-ostoja-reason"

_DELIVERIES = prometheus_client.Counter(
    "consumer_deliveries_total", "Deliveries by outcome.", ["queue", "outcome"]
)


@dataclass(frozen=True, slots=True)
class Ack:
    """Done, and what was promised is durable."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Again after the delay of `<queue>.retry`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """For a person: into `<queue>.dead`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """Again at once, by whoever is free; at a stop or while the database is away."""


Outcome = Ack | Retry | Dead | Requeue


@dataclass(frozen=True, slots=True)
class Delivery:
    redelivered: bool
    death_count: int
    """How often `.retry` gave it back, as RabbitMQ counts."""


Handler = Callable[[Message, Delivery], Awaitable[Outcome]]


class Consumer:
    """Takes from one queue, `prefetch` at a time, on a channel of its own.

    Handlers run in tasks of ours: aiormq cancels its own when a channel closes, which would cut a
    send in half. A delivery whose channel is gone cannot be acknowledged; RabbitMQ gives it out
    again.
    """

    def __init__(
        self,
        broker: Broker,
        queue: str,
        handler: Handler,
        *,
        prefetch: int,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        self.queue = queue
        self._broker = broker
        self._handler = handler
        self._prefetch = prefetch
        self._max_retries = max_retries
        self._wanted = True
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._tag: str | None = None
        self._switching = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_hand(self) -> int:
        return len(self._tasks)

    @property
    def consuming(self) -> bool:
        return self._tag is not None

    async def start(self) -> None:
        await self._broker.on_connect(self._connected)

    async def pause(self) -> None:
        """Stop taking; what is in hand goes on."""
        self._wanted = False
        await self._sync()

    async def resume(self, *, prefetch: int | None = None) -> None:
        """Take again; with `prefetch` that many at a time from now on."""
        if prefetch is not None and prefetch != self._prefetch:
            self._prefetch = prefetch
            await self._cancel()  # a limit counts for consumers that start after it
        self._wanted = True
        await self._sync()

    async def close(self) -> None:
        """Stop taking, finish what is in hand; what is not done by then is given back."""
        self._broker.forget(self._connected)
        await self.pause()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._channel is not None and not self._channel.is_closed:
            with suppress(*LOST):
                await self._channel.close()

    async def watch(self) -> None:
        """Restore a consumer that the broker cancelled or whose channel closed."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._restore()
            except LOST as error:
                log.warning("consumer.not_restored", queue=self.queue, error=repr(error))

    async def _restore(self) -> None:
        channel = self._channel
        if self._tag is None or channel is None:
            await self._sync()
            return
        gone = channel.is_closed
        if not gone:
            underlay: Any = await channel.get_underlay_channel()
            gone = self._tag not in underlay.consumers
        if gone:
            log.warning("consumer.lost", queue=self.queue)
            self._tag = None
            await self._broker.redeclare()  # its queue may have been deleted
            await self._sync()

    async def _connected(self, connection: AbstractConnection) -> None:
        self._connection, self._channel, self._tag = connection, None, None
        await self._sync()

    async def _sync(self) -> None:
        async with self._switching:
            if self._wanted and self._tag is None:
                await self._consume()
        if not self._wanted:
            await self._cancel()

    async def _consume(self) -> None:
        if self._connection is None or self._connection.is_closed:
            return
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel(publisher_confirms=False)
        await self._channel.set_qos(self._prefetch)
        queue = await self._channel.get_queue(self.queue, ensure=False)
        self._tag = await queue.consume(self._deliver)

    async def _cancel(self) -> None:
        async with self._switching:
            tag, self._tag = self._tag, None
            if tag is None or self._channel is None or self._channel.is_closed:
                return
            queue = await self._channel.get_queue(self.queue, ensure=False)
            with suppress(*LOST):
                await queue.cancel(tag)

    async def _deliver(self, incoming: AbstractIncomingMessage) -> None:
        task = asyncio.create_task(self._handle(incoming), name=f"delivery {self.queue}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, incoming: AbstractIncomingMessage) -> None:
        try:
            outcome = await self._outcome(incoming)
        except asyncio.CancelledError:
            outcome = Requeue()
        try:
            await self._settle(incoming, outcome)
        except LOST as error:
            # The channel is gone, and RabbitMQ gives the message out again.
            log.info("consumer.not_settled", queue=self.queue, error=type(error).__name__)
        _DELIVERIES.labels(self.queue, type(outcome).__name__.lower()).inc()

    async def _outcome(self, incoming: AbstractIncomingMessage) -> Outcome:
        try:
            message = _decode(incoming)
        except ValueError as error:
            log.error("consumer.undecodable", queue=self.queue, error=str(error))  # noqa: TRY400
            return Dead(f"undecodable: {error}")
        delivery = Delivery(bool(incoming.redelivered), _death_count(incoming, self.queue))
        logs.request_id.set(message.request_id)  # this task's own context
        try:
            return await self._handler(message, delivery)
        except Exception as error:
            if db.is_unavailable(error):
                # Not the message's fault: wait here, so that the queue is not spun through.
                log.warning("consumer.database_away", queue=self.queue)
                await asyncio.sleep(UNAVAILABLE_SECONDS)
                return Requeue()
            log.exception("consumer.failed", queue=self.queue, type=message.type)
            if delivery.death_count >= self._max_retries:
                return Dead(f"failed {delivery.death_count + 1} times: {type(error).__name__}")
            return Retry(type(error).__name__)

    async def _settle(self, incoming: AbstractIncomingMessage, outcome: Outcome) -> None:
        match outcome:
            case Ack():
                await incoming.ack()
            case Retry():
                await incoming.reject(requeue=False)
            case Requeue():
                await incoming.nack(requeue=True)
            case Dead(reason):
                log.error("consumer.dead", queue=self.queue, reason=reason)
                try:
                    await self._bury(incoming, reason)
                except PublishError:
                    await incoming.reject(requeue=False)  # it comes back, and is buried then
                else:
                    await incoming.ack()

    async def _bury(self, incoming: AbstractIncomingMessage, reason: str) -> None:
        headers = {REASON_HEADER: reason}
        if (request_id := incoming.headers.get(REQUEST_ID_HEADER)) is not None:
            headers[REQUEST_ID_HEADER] = str(request_id)
        dlx = f"{self.queue.split('.', 1)[0]}.dlx"
        await self._broker.forward(dlx, dead_name(self.queue), incoming, headers)


def _decode(incoming: AbstractIncomingMessage) -> Message:
    body = json.loads(incoming.body)
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 - all faults alike
    if not incoming.message_id or not incoming.type:
        raise ValueError("message_id or type is missing")
    request_id = incoming.headers.get(REQUEST_ID_HEADER)
    return Message(
        id=incoming.message_id,
        type=incoming.type,
        body=body,
        request_id=str(request_id) if request_id is not None else None,
        reply_to=incoming.reply_to,
        correlation_id=incoming.correlation_id,
        headers=dict(incoming.headers),
    )


def _death_count(incoming: AbstractIncomingMessage, queue: str) -> int:
    deaths: Any = incoming.headers.get("x-death") or []
    return sum(int(death.get("count", 0)) for death in deaths if death.get("queue") == queue)


@asynccontextmanager
async def consume(
    broker: Broker,
    queue: str,
    handler: Handler,
    *,
    prefetch: int,
    max_retries: int = MAX_RETRIES,
) -> AsyncIterator[Consumer]:
    consumer = Consumer(broker, queue, handler, prefetch=prefetch, max_retries=max_retries)
    await consumer.start()
    watchdog = asyncio.create_task(consumer.watch(), name=f"watch {queue}")
    try:
        yield consumer
    finally:
        watchdog.cancel()
        await asyncio.wait({watchdog})
        await consumer.close()
