"""HTTP to the owners of routes: kept connections, time-outs, streamed answers.

A request is sent once. The exception is a GET that met a connection which its owner closed in the
same moment, before a byte of an answer: it is asked again on a new one. Anything else that breaks
after the first byte was written may have had its effect, so the caller is told 502 or 504.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

from aiohttp import hdrs

from libs.common import logs, tracing
from libs.common.http_client import Answer, Broken, Connection, Pool, Unreachable, compose
from libs.common.web import INTERNAL_KEY, Problem
from services.gateway import metrics

log = logs.get_logger(__name__)

CONNECTIONS = 100
CONNECT_SECONDS = 3.0
RETRY_AFTER = "2"
FAULTS: Mapping[type[BaseException], tuple[int, str]] = {
    Unreachable: (503, "unreachable"),
    TimeoutError: (504, "timeout"),
    Broken: (502, "broken"),
}


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
        self.pool = Pool(self._connect, CONNECTIONS)
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
            upstream.pool.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> "Exchange":
        """Send a request with our internal key; `async with` gives the answer.

        A small answer is whole when it is given, of a large one the head is there; its body may
        still break, with the same outcomes. A body in parts is sent on as fast as the owner takes
        it; what the iterator raises is raised.

        :param timeout: in place of answer_seconds
        :raises Problem: 503 not reached, so nothing happened; 502, 504 what happened is unknown
        """
        line = f"{method} {self._prefix}{path} HTTP/1.1"
        try:
            carried = {**(headers or {}), **tracing.headers(logs.request_id.get())}
            request = compose(line, self._fixed, carried, body)
        except ValueError as error:
            raise Problem(400, detail=str(error)) from None
        parts = None if body is None or isinstance(body, bytes) else body
        sent = self._send(method, request, parts, timeout or self._answer_seconds)
        return Exchange(self, sent)

    async def _send(
        self, method: str, request: bytes, parts: AsyncIterable[bytes] | None, seconds: float
    ) -> Connection:
        """Return the connection on which the answer comes; it is to be given back."""
        start = time.perf_counter()
        connection = await self.pool.take(CONNECT_SECONDS)
        try:
            try:
                await connection.send(request, seconds, parts)
            except Broken:
                if method != hdrs.METH_GET or not connection.was_stale:
                    raise
                connection.close()
                connection = await self._connect()
                await connection.send(request, seconds)
        except BaseException:
            self.pool.give_back(connection)
            raise
        self._seconds.observe(time.perf_counter() - start)
        return connection

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    Connection, self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise Unreachable(type(error).__name__) from error
        return connection

    def failed(self, error: BaseException) -> Problem | None:
        """Return what the caller is told; None where it is not the owner that failed."""
        if (fault := FAULTS.get(type(error))) is None:
            return None
        status, reason = fault
        metrics.UPSTREAM_FAILURES.labels(self.name, reason).inc()
        log.warning("proxy.failed", upstream=self.name, reason=reason, error=repr(error))
        return Problem(
            status,
            detail=f"the part of the system that answers this ({self.name}) is {reason}; try again",
            headers={hdrs.RETRY_AFTER: RETRY_AFTER},
        )


class Exchange:
    """`async with` of one request, written out: by @asynccontextmanager each cost 5 % more."""

    def __init__(self, upstream: Upstream, sent: Awaitable[Connection]) -> None:
        self._upstream = upstream
        self._sent = sent

    async def __aenter__(self) -> Answer:
        try:
            self._connection = await self._sent
        except Exception as error:
            if (problem := self._upstream.failed(error)) is None:
                raise
            raise problem from None
        return self._connection.answer

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._upstream.pool.give_back(self._connection)
        if error is not None and (problem := self._upstream.failed(error)) is not None:
            raise problem from None
