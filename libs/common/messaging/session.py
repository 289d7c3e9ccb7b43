"""A pair of connections to RabbitMQ, and the channels for publishing on it."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from yarl import URL

from libs.common.messaging import aiormq_private
from libs.common.process import logs, sockets
from libs.common.process.logs import log

CALL_SECONDS = 5.0
SILENT_SECONDS = 30.0

# What aio-pika, aiormq, asyncio's streams and the socket raise when the connection or the channel
# is lost, refused or too slow.
FAULTS: tuple[type[BaseException], ...] = (
    *CONNECTION_EXCEPTIONS,
    TimeoutError,
    EOFError,
)


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
    """Log an error of a loop that restarts after any error.

    Such a loop must survive unforeseen errors: nothing would show that a queue has no consumer.
    """
    log.warning(event, error=repr(error), exc_info=not isinstance(error, FAULTS), **values)


async def open_channel(connection: AbstractConnection) -> AbstractChannel:
    """Open a channel without confirms in bounded time, unlike aio-pika's own argument."""
    channel = connection.channel(publisher_confirms=False)
    async with asyncio.timeout(CALL_SECONDS):
        await channel.initialize()
    return channel


async def close(
    opened: AbstractChannel | AbstractConnection, seconds: float = CALL_SECONDS
) -> None:
    """Close it, and wait for its end in bounded time. A channel that ends later costs nothing."""
    with suppress(*FAULTS), connection_faults():
        async with asyncio.timeout(seconds):
            await opened.close()


class PublisherChannel:
    """The channel for publishing to one queue or one exchange."""

    def __init__(self, exchange: str) -> None:
        self.lock = asyncio.Lock()
        self.channel: AbstractChannel | None = None
        self.proven = False
        self._exchange = exchange

    @asynccontextmanager
    async def published(
        self, messages: Sequence[aio_pika.Message], routing_key: str
    ) -> AsyncIterator[Sequence[asyncio.Future[Any]]]:
        """Write messages of different ids in one piece; yield the future confirm of each.

        If this raises, nothing was written. At the end, confirms that are not there are forgotten.
        """
        if self.channel is None:
            raise ConnectionError("no channel")
        channel = cast("aiormq.Channel", await self.channel.get_underlay_channel())
        confirms = await aiormq_private.publish(channel, self._exchange, routing_key, messages)
        try:
            yield confirms
        finally:
            for message, confirm in zip(messages, confirms, strict=True):
                confirm.cancel()
                channel.message_id_delivery_tag.pop(str(message.message_id), None)


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


class Connection(aio_pika.Connection):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kwargs["transport_factory"] = _Transport()

    def __del__(self) -> None:
        """Close nothing: whoever opened it has done so.

        aio-pika starts a close of each connection that could not be opened, even if the garbage
        collector runs after the loop has stopped: that close is never awaited.
        """


class Session:
    """A pair of connections, until either is lost."""

    def __init__(self, publishing: AbstractConnection, consuming: AbstractConnection) -> None:
        self.consuming = consuming
        self.lost = asyncio.Event()
        self.blocked = False
        self.waiting: set[asyncio.Timeout] = set()
        self._silent = 0.0  # seconds in which publishes waited, since one was answered
        self._noted = 0.0
        self._publishing = publishing
        self._publishers: dict[tuple[str, str], PublisherChannel] = {}
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
        # RabbitMQ reports it upon a publish, and confirms nothing until the alarm is over.
        for timeout in self.waiting:
            if not timeout.expired():
                timeout.reschedule(0)

    async def _on_unblocked(self, _: aiormq.spec.Connection.Unblocked) -> None:
        log.info("broker.unblocked")
        self.blocked = False

    def note_publish(self, sent: float, *, answered: bool) -> None:
        """Count the session as lost when publishes waited SILENT_SECONDS and none was answered."""
        now = asyncio.get_running_loop().time()
        answered |= self.blocked
        self._silent = 0.0 if answered else self._silent + now - max(sent, self._noted)
        self._noted = now
        if self._silent > SILENT_SECONDS:
            log.warning("broker.silent", seconds=SILENT_SECONDS)
            self.lost.set()

    @asynccontextmanager
    async def publisher(self, exchange: str, queue: str) -> AsyncIterator[PublisherChannel]:
        """Return the confirming channel of a queue, or of an exchange (queue "").

        RabbitMQ may block a channel for a minute when a message goes to a queue without a leader.
        Publishing to a missing or forbidden exchange closes the channel and leaves everything in
        flight on it unconfirmed. Neither may affect other messages. Also, aiormq keeps writing
        after the channel was closed, and RabbitMQ then closes the connection, so the first write
        on a channel is sent alone.
        """
        publisher = self._publishers.setdefault((exchange, queue), PublisherChannel(exchange))
        async with publisher.lock:
            if publisher.channel is None or publisher.channel.is_closed:
                publisher.proven = False
                publisher.channel = self._publishing.channel(
                    publisher_confirms=True, on_return_raises=True
                )
                await publisher.channel.initialize()
            if not publisher.proven:
                yield publisher
                publisher.proven = not publisher.channel.is_closed
                return
        yield publisher

    async def close(self) -> None:
        self.lost.set()
        await asyncio.gather(*map(close, (self._publishing, self.consuming)))
