"""An HTTP/1.1 client: one request at a time on a connection, and a pool of connections.

aiohttp's client is most of what a bare proxy costs, and a quarter of what an alert does
(docs/decisions/0005). This one has no redirects, cookies, compression or proxies. httptools
(llhttp, Node's parser) reads the responses.

It never sends anything twice. A request that fails after its first byte was written may have had
its effect: the caller decides what to do.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from enum import Enum, auto
from functools import lru_cache
from typing import Any, cast

import httptools
from aiohttp import hdrs
from multidict import CIMultiDict, istr

from libs.common.process import sockets

MAX_HEAD = 64 * 1024  # everything but the body: heads, interim responses, extensions, trailers
WHOLE = 64 * 1024  # a response up to this size is read whole, a larger one is streamed
BUFFERED = 256 * 1024  # bytes of a streamed response whose reader is slower than the server
IDLE_SECONDS = 15.0
"""Well below our own servers' (server.IDLE_SECONDS), so that they rarely close first."""


class Broken(Exception):  # noqa: N818 - reads as the state it is
    """The connection ended or sent malformed HTTP. The request may have had its effect."""


class Unreachable(Exception):  # noqa: N818 - reads as the state it is
    """No connection: nothing was sent."""


class Response:
    """A server's response: its head, and as much of its body as has arrived."""

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.received = bytearray()
        self.begun = False
        self.complete = False
        self.streamed: bool | None = None  # None until the head is complete
        self.fault: Exception | None = None
        self.paused = False  # its reader is slower than the server
        self._connection = connection

    async def read(self, limit: int = sys.maxsize) -> bytes:
        """Return the body, or its first `limit` bytes."""
        while not self.complete and len(self.received) < limit:
            await self._connection.receive()
        return bytes(self.received[:limit])

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, in parts of 64 KiB at most."""
        while True:
            if self.received:
                part = bytes(self.received[:WHOLE])
                del self.received[:WHOLE]
                yield part
            elif self.complete:
                return
            else:
                await self._connection.receive()


class State(Enum):
    """Like httpcore's HTTPConnectionState, whose ACTIVE is SENDING and RECEIVING here."""

    IDLE = auto()
    SENDING = auto()  # the body of a request
    RECEIVING = auto()  # the request was sent, its response is not complete
    CLOSED = auto()  # it accepts no further request


class Connection(asyncio.Protocol):
    """One request at a time. httptools calls the on_… methods while it is fed."""

    def __init__(self) -> None:
        self.response = Response(self)
        self._state = State.IDLE
        self._requests = 0
        self._overhead = 0  # bytes since the last of a body, or since the head
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._read_timeout = 0.0
        self._heard_at = 0.0  # when anything was last received
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def active(self) -> bool:
        return self._state is State.RECEIVING or self._state is State.SENDING

    @property
    def idle(self) -> bool:
        """Return whether it is open and waits for a request."""
        transport = self._transport
        return self._state is State.IDLE and transport is not None and not transport.is_closing()

    @property
    def usable(self) -> bool:
        """Return whether it may carry a request; the peer may have closed it unnoticed."""
        return self.idle and not self._ended.poll(0)

    @property
    def was_stale(self) -> bool:
        """Return whether the server closed it between the last response and this request."""
        return self._requests > 1 and not self.response.begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ended = sockets.poll_for_end(transport.get_extra_info("socket"))
        self._encrypted = transport.get_extra_info("sslcontext") is not None

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def send(
        self, request: bytes, read_timeout: float, parts: AsyncIterable[bytes] | None = None
    ) -> None:
        """Send a request; return when its response is complete, or streamed and begun.

        :param read_timeout: seconds without any data received, or without progress in sending
        :raises Unreachable: the connection had ended before anything was sent
        :raises Broken: the connection ended, or sent malformed HTTP
        :raises TimeoutError: the server was silent for too long
        """
        if self._transport is None or self._transport.is_closing():
            raise Unreachable("closed at once")
        self.response = Response(self)
        self._requests += 1
        self._overhead = 0
        self._state = State.RECEIVING
        self._transport.write(request)
        if parts is not None:
            self._state = State.SENDING
            await self._send_parts(parts, read_timeout)
        if self.response.complete:
            return
        self._heard_at, self._read_timeout = self._loop.time(), read_timeout
        self._timer = self._loop.call_later(read_timeout, self._look)
        if not self.response.streamed:
            await self.receive()

    async def _send_parts(self, parts: AsyncIterable[bytes], read_timeout: float) -> None:
        if self._transport is not None:  # it may be slow with a large file without being dead
            sockets.wait_for_peer(self._transport.get_extra_info("socket"), read_timeout)
        async for part in parts:
            if self._transport is None or self.response.status >= 200:
                return  # lost, or it responded early: still SENDING, so it is not used again
            self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
            async with asyncio.timeout(read_timeout):
                await self._writable.wait()
        if self._transport is not None:
            self._transport.write(b"0\r\n\r\n")
        if self._state is State.SENDING:
            self._state = State.RECEIVING

    async def receive(self) -> None:
        """Wait for more of the response, or for its end."""
        response = self.response
        if response.fault is not None:
            raise response.fault
        if response.paused:
            self._resume()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _resume(self) -> None:
        if self._transport is not None:
            self.response.paused = False
            self._heard_at = self._loop.time()  # it was not read until now
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if not self.active:  # data without a request would be taken for the next response
            self.close()
            return
        self.response.begun = True
        self._heard_at = self._loop.time()
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(Broken(f"malformed or unrequested HTTP: {type(error).__name__}"))
        else:
            if self._overhead > MAX_HEAD and self.active:
                self.fail(Broken("the head is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.active:
            self._state = State.CLOSED
            return
        headers = self.response.headers
        bounded = hdrs.CONTENT_LENGTH in headers or hdrs.TRANSFER_ENCODING in headers
        if self.response.streamed and not bounded and exc is None:
            self._state = State.CLOSED  # the end of the connection ends the body
            self.response.complete = True
            self._stop_timer()
            self._wake()
        else:
            self.fail(Broken(self._end(exc)))

    def _end(self, exc: Exception | None) -> str:
        if self._encrypted and self._requests == 1 and not self.response.begun:
            # asyncio's servers send no alert when they refuse a client's certificate.
            return f"closed before a response; it may refuse our certificate ({exc})"
        return "closed by the server"

    def on_message_begin(self) -> None:
        if not self.active:  # a second response behind the first: it must not be mixed into it
            raise ValueError("no request is on this connection")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.response.streamed is None:  # else a trailer, no header (RFC 9110, section 6.5.1)
            self.response.headers.add(_name(name), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        response = self.response
        response.status = self._parser.get_status_code()
        if response.status < 200:  # an interim one: the final response is still to come
            return
        self._overhead = 0
        length = response.headers.get(hdrs.CONTENT_LENGTH)
        large = length is None or int(length) > WHOLE
        response.streamed = large and response.status not in {204, 304}
        if response.streamed:
            self._wake()

    def on_body(self, body: bytes) -> None:
        response = self.response
        response.received += body
        self._overhead = 0
        if response.streamed:
            if len(response.received) > BUFFERED and not response.paused and self._transport:
                response.paused = True
                self._transport.pause_reading()
            self._wake()

    def on_message_complete(self) -> None:
        response = self.response
        if response.status < 200:
            response.status = 0
            response.headers.clear()
            return
        # A server that responds before it has the whole request has not read the rest.
        reusable = self._state is State.RECEIVING and self._parser.should_keep_alive()
        self._state = State.IDLE if reusable else State.CLOSED
        response.complete = True
        self._stop_timer()
        if response.paused:
            self._resume()  # for the next request, and to see the end of an idle connection
        self._wake()

    def fail(self, fault: Exception) -> None:
        """Close the connection; the caller gets the first fault."""
        if self.response.fault is None:
            self.response.fault = fault
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(fault)
        self.close()

    def _look(self) -> None:
        if self.response.paused:  # the reader is slow, not the server
            self._heard_at = self._loop.time()
        left = self._heard_at + self._read_timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.fail(TimeoutError(f"silent for {self._read_timeout:g} s"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        self._state = State.CLOSED
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()


class Pool:
    """A bounded pool of connections to one server."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], limit: int) -> None:
        self._connect = connect
        self._slots = asyncio.Semaphore(limit)
        self._idle: list[tuple[float, Connection]] = []

    async def acquire(self, pool_timeout: float | None = None) -> Connection:
        """Take the most recently used idle connection, or open one as soon as the limit allows.

        :param pool_timeout: seconds to wait while every connection is in use
        :raises Unreachable: none was released in time
        """
        if self._slots.locked():
            try:
                async with asyncio.timeout(pool_timeout):
                    await self._slots.acquire()
            except TimeoutError:
                raise Unreachable("every connection is in use") from None
        else:
            await self._slots.acquire()
        try:
            long_ago = time.monotonic() - IDLE_SECONDS
            while self._idle:
                since, connection = self._idle.pop()
                if connection.usable and since > long_ago:
                    return connection
                connection.close()
            return await self._connect()
        except BaseException:
            self._slots.release()
            raise

    def release(self, connection: Connection) -> None:
        if connection.idle:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.close()
        self._slots.release()

    def close(self) -> None:
        for _, connection in self._idle:
            connection.close()


def build_request(
    line: str, fixed: str, headers: Mapping[str, str], body: bytes | AsyncIterable[bytes] | None
) -> bytes:
    """Return the bytes of a request; for a streamed body only its head.

    :param line: the request line
    :param fixed: valid header lines, each with its line end
    :raises ValueError: a line break would forge a header or a second request
    """
    given = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    # Callers must not pass line breaks. This is a second check, because one that got through would
    # add a header or a second request.
    lines = len(headers)
    if given.count("\r") != lines or given.count("\n") != lines or "\r" in line or "\n" in line:
        raise ValueError("a header contains a line break")
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
