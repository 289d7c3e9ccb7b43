"""HTTP/1.1 to the owners of routes: kept connections, a bounded pool, time-outs, streamed answers.

aiohttp's client costs three times what the whole of the gateway's own work does, and that is paid
on every request (docs/decisions/0005). What is spoken here is what our own services speak: no
redirects, cookies, compression or proxies. httptools (llhttp, Node's parser) reads the answers.

A request is sent once. The exception is a GET that met a connection which its owner closed in the
same moment, before a byte of an answer: it is asked again on a new one. Anything else that breaks
after the first byte was written may have had its effect, so the caller is told 502 or 504.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httptools
from aiohttp import hdrs
from multidict import CIMultiDict

from libs.common import logs
from libs.common.web import INTERNAL_KEY, Problem
from services.gateway import metrics

log = logs.get_logger(__name__)

CONNECTIONS = 100
CONNECT_SECONDS = 3.0
IDLE_SECONDS = (
    15.0  # well below the owners' own (serving.IDLE_SECONDS), so that they seldom close first
)
MAX_HEAD = (
    64 * 1024
)  # bytes that bring no body: a head, interim answers, chunk extensions, trailers
WHOLE = 64 * 1024  # an answer up to here is read whole, a larger one is streamed
BUFFERED = 256 * 1024  # of a streamed one, while the client is slower than the owner
RETRY_AFTER = "2"


class Broken(Exception):  # noqa: N818 - reads as the state it is
    """The connection ended, or what came is no HTTP. The request may have had its effect."""


class Unreachable(Exception):  # noqa: N818 - reads as the state it is
    """No connection: nothing was sent."""


class Answer:
    """An owner's answer: its head, and as much of its body as came so far."""

    def __init__(self, connection: "_Connection") -> None:
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


class Upstream:
    """One owner: its address, and a bounded pool of connections to it."""

    def __init__(self, name: str, url: str, internal_key: str, answer_seconds: float) -> None:
        parts = urlsplit(url)
        self.name = name
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._fixed = f"Host: {parts.netloc}\r\n{INTERNAL_KEY}: {internal_key}\r\n"
        self._answer_seconds = answer_seconds
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._seconds = metrics.UPSTREAM_SECONDS.labels(name)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, name: str, url: str, internal_key: str, *, answer_seconds: float
    ) -> AsyncIterator[Self]:
        """:param answer_seconds: the longest silence of an owner that is believed to be at work"""
        upstream = cls(name, url, internal_key, answer_seconds)
        try:
            yield upstream
        finally:
            for connection in upstream._idle:
                connection.close()

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - in place of answer_seconds
    ) -> AsyncIterator[Answer]:
        """Send a request with our internal key.

        A small answer is whole when it is given, of a large one the head is there; its body may
        still break, with the same outcomes. A body in parts is sent on as fast as the owner takes
        it; what the iterator raises is raised.

        :raises Problem: 503 not reached, so nothing happened; 502, 504 what happened is unknown
        """
        start = time.perf_counter()
        parts = None if body is None or isinstance(body, bytes) else body
        request = self._request(method, path, headers or {}, body)
        seconds = timeout or self._answer_seconds
        try:
            connection = await self._connected()
            try:
                try:
                    await connection.send(request, seconds, parts)
                except Broken:
                    if method != hdrs.METH_GET or not connection.was_stale:
                        raise
                    connection.close()
                    connection = await self._connect()
                    await connection.send(request, seconds)
                self._seconds.observe(time.perf_counter() - start)
                yield connection.answer
            finally:
                self._give_back(connection)
        except Unreachable as error:
            raise self._failed(503, "unreachable", error) from None
        except TimeoutError as error:
            raise self._failed(504, "timeout", error) from None
        except Broken as error:
            raise self._failed(502, "broken", error) from None

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterable[bytes] | None,
    ) -> bytes:
        lines = [f"{method} {self._prefix}{path} HTTP/1.1\r\n", self._fixed]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        whole = body if isinstance(body, bytes) else b""
        if whole or isinstance(body, bytes):
            lines.append(f"Content-Length: {len(whole)}\r\n")
        elif body is not None:
            lines.append("Transfer-Encoding: chunked\r\n")
        head = "".join(lines)
        # aiohttp's parser lets no line end into a value; were it wrong once, a second request
        # could be smuggled in here. The fixed lines are two.
        if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
            raise Problem(400, detail="a header holds a line break")
        return head.encode("utf-8", "surrogateescape") + b"\r\n" + whole

    async def _connected(self) -> "_Connection":
        """Take an idle connection, the last used first, or open one as soon as one may be."""
        if self._slots.locked():
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
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

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise Unreachable(type(error).__name__) from error
        return connection

    def _give_back(self, connection: "_Connection") -> None:
        if connection.usable:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        self._slots.release()

    def _failed(self, status: int, reason: str, error: Exception) -> Problem:
        metrics.UPSTREAM_FAILURES.labels(self.name, reason).inc()
        log.warning("proxy.failed", upstream=self.name, reason=reason, error=repr(error))
        return Problem(
            status,
            detail=f"the part of the system that answers this ({self.name}) is {reason}; try again",
            headers={hdrs.RETRY_AFTER: RETRY_AFTER},
        )


class _Connection(asyncio.Protocol):
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
            text = value.decode("utf-8", "surrogateescape")
            self.answer.headers.add(name.decode("latin-1"), text)

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
