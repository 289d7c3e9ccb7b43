"""One connection to an owner, for one request at a time; what `upstream.py` keeps in its pool."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from functools import lru_cache
from typing import Any, cast

import httptools
from aiohttp import hdrs
from multidict import CIMultiDict, istr

MAX_HEAD = 64 * 1024  # and interim answers, chunk extensions, trailers: all that is no body
WHOLE = 64 * 1024  # an answer up to here is read whole, a larger one is streamed
BUFFERED = 256 * 1024  # of a streamed one, while the client is slower than the owner


class Broken(Exception):  # noqa: N818 - reads as the state it is
    """The connection ended, or what came is no HTTP. The request may have had its effect."""


class Unreachable(Exception):  # noqa: N818 - reads as the state it is
    """No connection: nothing was sent."""


class Answer:
    """An owner's answer: its head, and as much of its body as came so far."""

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.received = bytearray()
        self.complete = False
        self._connection = connection

    async def read(self) -> bytes:
        """Return the whole body."""
        while not self.complete:
            await self._connection.more()
        return bytes(self.received)

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
        """Say whether its owner had closed it after an earlier answer, before this request came."""
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
            self._fail(Broken("closed by the owner"))

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
        """Fail when the owner was silent for too long; look again when it was not."""
        self._timer = None
        if not self._expecting:
            return
        if self._paused:  # it is the client that is slow
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


@lru_cache(maxsize=256)
def _name(name: bytes) -> istr:
    return istr(name.decode("latin-1"))
