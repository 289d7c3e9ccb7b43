"""HTTP/1.1 as a client: one request at a time on a connection, and connections kept in a pool.

aiohttp's client is most of what a bare proxy costs, and a quarter of what an alert does
(docs/decisions/0005). What is spoken here is what those need: no redirects, cookies, compression
or proxies. httptools (llhttp, Node's parser) reads the answers.

Nothing is sent twice from here. What breaks after the first byte was written may have had its
effect: what to do about it is the caller's to say.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, cast

import httptools
from aiohttp import hdrs
from multidict import CIMultiDict, istr

MAX_HEAD = 64 * 1024  # and interim answers, chunk extensions, trailers: all that is no body
WHOLE = 64 * 1024  # an answer up to here is read whole, a larger one is streamed
BUFFERED = 256 * 1024  # of a streamed one, while its reader is slower than the server
IDLE_SECONDS = 15.0
"""Well below our own servers' (serving.IDLE_SECONDS), so that they seldom close first."""


class Broken(Exception):  # noqa: N818 - reads as the state it is
    """The connection ended, or what came is no HTTP. The request may have had its effect."""


class Unreachable(Exception):  # noqa: N818 - reads as the state it is
    """No connection: nothing was sent."""


class Answer:
    """A server's answer: its head, and as much of its body as came so far."""

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.received = bytearray()
        self.complete = False
        self._connection = connection

    async def read(self, limit: int = sys.maxsize) -> bytes:
        """Return the body, or so many bytes of its beginning."""
        while not self.complete and len(self.received) < limit:
            await self._connection.more()
        return bytes(self.received[:limit])

    async def parts(self) -> AsyncIterator[bytes]:
        """Give the body as it comes, in parts of 64 KiB at most."""
        while True:
            if self.received:
                part = bytes(self.received[:WHOLE])
                del self.received[:WHOLE]
                yield part
            elif self.complete:
                return
            else:
                await self._connection.more()


class Connection(asyncio.Protocol):
    """One request at a time. httptools calls the on_… methods while it is fed."""

    def __init__(self) -> None:
        self.answer = Answer(self)
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._answered_before = False
        self._expecting = False
        self._asked_at, self._silence = 0.0, 0.0
        self._heard_at: float | None = None  # of this answer
        self._timer: asyncio.TimerHandle | None = None
        self._bodiless = 0  # bytes since the last of a body, or since the head
        self._streamed: bool | None = None  # None until its head is there
        self._kept_alive = True
        self._paused = False
        self._fault: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def usable(self) -> bool:
        """Say whether it may carry another request."""
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and not self._expecting
            and self._kept_alive
        )

    @property
    def was_stale(self) -> bool:
        """Say whether its server closed it after an earlier answer, before this request came."""
        return self._answered_before and self._heard_at is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def send(
        self, request: bytes, silence: float, parts: AsyncIterable[bytes] | None = None
    ) -> None:
        """Send a request; return when its answer is whole, or streamed and begun.

        :raises Unreachable: the connection had ended before anything was sent
        :raises Broken: the connection ended, or what comes is no HTTP
        :raises TimeoutError: nothing came for so many seconds
        """
        if self._transport is None or self._transport.is_closing():
            raise Unreachable("closed at once")
        self.answer = Answer(self)
        self._expecting, self._streamed, self._heard_at = True, None, None
        self._bodiless = 0
        self._transport.write(request)
        if parts is not None:
            await self._send_parts(parts, silence)
        if self.answer.complete:
            return
        self._asked_at, self._silence = self._loop.time(), silence
        if self._timer is None or self._timer.when() > self._asked_at + silence:
            self._set_timer(silence)
        if not self._streamed:
            await self.more()

    async def _send_parts(self, parts: AsyncIterable[bytes], silence: float) -> None:
        self._stop_timer()  # it may still run from the request before; each part has its own time
        async for part in parts:
            if self._transport is None or self.answer.status >= 200:
                self._kept_alive = False  # it answers before it has heard all, or is gone
                return
            self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
            async with asyncio.timeout(silence):
                await self._writable.wait()
        if self._transport is not None:
            self._transport.write(b"0\r\n\r\n")

    async def more(self) -> None:
        """Return when there is more of the answer, or all of it."""
        if self._fault is not None:
            raise self._fault
        if self._paused and self._transport is not None:
            self._paused = False
            self._heard_at = self._loop.time()  # until now it was not listened to
            self._transport.resume_reading()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if not self._expecting:  # nobody asked: what it answers cannot be known any more
            self.close()
            return
        self._bodiless += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Broken(f"no HTTP that was asked for: {type(error).__name__}"))
        else:
            if self._bodiless > MAX_HEAD and self._expecting:
                self._fail(Broken("a head without end"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._expecting or self._fault is not None:
            return
        headers = self.answer.headers
        bounded = hdrs.CONTENT_LENGTH in headers or hdrs.TRANSFER_ENCODING in headers
        if self._streamed and not bounded and exc is None:  # its end is the connection's
            self._kept_alive = False
            self.on_message_complete()
        else:
            self._fail(Broken("closed by the server"))

    def on_message_begin(self) -> None:
        if not self._expecting:  # a second answer behind the first: it must not be mixed into it
            raise ValueError("nobody asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._streamed is None:  # else a trailer, which is no header (RFC 9110, section 6.5.1)
            self.answer.headers.add(_name(name), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        answer = self.answer
        answer.status = self._parser.get_status_code()
        if answer.status < 200:  # an interim one: the answer is still to come
            return
        self._bodiless = 0
        length = answer.headers.get(hdrs.CONTENT_LENGTH)
        self._streamed = (length is None or int(length) > WHOLE) and answer.status not in {204, 304}
        if self._streamed:
            self._wake()

    def on_body(self, body: bytes) -> None:
        self.answer.received += body
        self._bodiless = 0
        if self._streamed:
            if len(self.answer.received) > BUFFERED and not self._paused and self._transport:
                self._paused = True
                self._transport.pause_reading()
            self._wake()

    def on_message_complete(self) -> None:
        if self.answer.status < 200:
            self.answer = Answer(self)
            return
        self._expecting = False
        self._answered_before = True
        self._kept_alive = self._kept_alive and self._parser.should_keep_alive()
        self.answer.complete = True
        self._wake()

    def _set_timer(self, seconds: float) -> None:
        """Set it, or set it to an earlier time.

        It is not stopped at the end of an answer: to let it run and look costs less than two calls
        for each request.
        """
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Fail when the server was silent for too long; look again when it was not."""
        self._timer = None
        if not self._expecting:
            return
        if self._paused:  # it is the reader that is slow
            self._heard_at = self._loop.time()
        left = (self._heard_at or self._asked_at) + self._silence - self._loop.time()
        if left > 0:
            self._set_timer(left)
        else:
            self._fail(TimeoutError(f"silent for {self._silence:g} s"))

    def _fail(self, fault: Exception) -> None:
        """Close; the first fault is what the caller is told."""
        if self._fault is None:
            self._fault = fault
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(fault)
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        self._kept_alive = False
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()


class Pool:
    """Connections to one server, no more than a limit, kept for the next request."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], limit: int) -> None:
        self._connect = connect
        self._slots = asyncio.Semaphore(limit)
        self._idle: list[Connection] = []

    async def take(self, patience: float | None = None) -> Connection:
        """Take an idle connection, the last used first, or open one as soon as one may be.

        :param patience: how many seconds to wait while every connection is in use
        :raises Unreachable: for so long none came back
        """
        if self._slots.locked():
            try:
                async with asyncio.timeout(patience):
                    await self._slots.acquire()
            except TimeoutError:
                raise Unreachable("every connection is in use") from None
        else:
            await self._slots.acquire()
        try:
            long_ago = time.monotonic() - IDLE_SECONDS
            while self._idle:
                connection = self._idle.pop()
                if connection.usable and connection.idle_since > long_ago:
                    return connection
                connection.close()
            return await self._connect()
        except BaseException:
            self._slots.release()
            raise

    def give_back(self, connection: Connection) -> None:
        if connection.usable:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        self._slots.release()

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


def compose(
    line: str, fixed: str, headers: Mapping[str, str], body: bytes | AsyncIterable[bytes] | None
) -> bytes:
    """Return a request; of a body in parts only the announcement.

    :param line: the request line
    :param fixed: lines of headers that are known to be good, each with its end
    :raises ValueError: there is a line break where none belongs
    """
    given = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    # Whoever made these lets no line end into them; were he wrong once, a header or a second
    # request could be smuggled in here.
    breaks = given.count("\r"), given.count("\n"), line.count("\r") + line.count("\n")
    if breaks != (len(headers), len(headers), 0):
        raise ValueError("a header holds a line break")
    whole, length = b"", ""
    if isinstance(body, bytes):
        whole, length = body, f"Content-Length: {len(body)}\r\n"
    elif body is not None:
        length = "Transfer-Encoding: chunked\r\n"
    head = f"{line}\r\n{fixed}{given}{length}\r\n"
    return head.encode("utf-8", "surrogateescape") + whole


@lru_cache(maxsize=256)
def _name(name: bytes) -> istr:
    return istr(name.decode("latin-1"))
