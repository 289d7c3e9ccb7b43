"""HTTP to the services behind routes: pooled connections, time-outs, streamed responses.

A request is sent once. Only a GET is repeated, on a new connection, when the upstream closed the
pooled one before the first byte of a response. After any other failure the request may have had its
effect, so the caller gets 502 or 504.
"""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from aiohttp import hdrs

from libs.common.http.application import INTERNAL_KEY, Problem
from libs.common.http.client import Broken, Connection, Pool, Response, Unreachable, build_request
from libs.common.process import certificates, logs, sockets, tracing
from libs.common.process.logs import log
from services.gateway import metrics

CONNECTIONS = 100
CONNECT_SECONDS = 3.0
RETRY_AFTER = "2"
FAULTS: Mapping[type[BaseException], tuple[int, str]] = {
    Unreachable: (503, "unreachable"),
    TimeoutError: (504, "timeout"),
    Broken: (502, "broken"),
}


class Upstream:
    """One service: its address, and a bounded pool of connections to it."""

    def __init__(
        self,
        name: str,
        url: str,
        internal_key: str,
        *,
        answer_seconds: float,
        tls_dir: Path | None = None,
        connections: int | None = None,
    ) -> None:
        """:param answer_seconds: how long the upstream may send nothing
        :param connections: how many of its answers may be under way; further requests get 503
        """
        parts = urlsplit(url)
        self.name = name
        self._host = parts.hostname or ""
        secure = parts.scheme == "https"
        self._tls = certificates.Current(tls_dir, certificates.client) if secure else None
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._fixed = f"Host: {parts.netloc}\r\n{INTERNAL_KEY}: {internal_key}\r\n"
        self._answer_seconds = answer_seconds
        self.pool = Pool(self._connect, connections or CONNECTIONS)
        self._took = metrics.UPSTREAM_SECONDS.labels(name).observe

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pool.close()

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of silence, not of the whole
    ) -> AsyncIterator[Response]:
        """Send a request with our internal key; yield the response.

        A small answer is complete; a large one has only its head, and reading its body may still
        fail in the same ways. A streamed body is sent as fast as the upstream reads it; exceptions
        of its iterator propagate.

        :param timeout: overrides answer_seconds
        :raises Problem: 503 not reached, so nothing happened; 502, 504 the outcome is unknown
        """
        line = f"{method} {self._prefix}{path} HTTP/1.1"
        try:
            carried = {**(headers or {}), **tracing.headers(logs.request_id.get())}
            request = build_request(line, self._fixed, carried, body)
        except ValueError as error:
            raise Problem(400, detail=str(error)) from None
        parts = None if body is None or isinstance(body, bytes) else body
        try:
            connection = await self._send(method, request, parts, timeout or self._answer_seconds)
            try:
                yield connection.response
            finally:
                self.pool.release(connection)
        except (Unreachable, Broken, TimeoutError) as error:
            raise self._failed(error) from None

    async def _send(
        self, method: str, request: bytes, parts: AsyncIterable[bytes] | None, seconds: float
    ) -> Connection:
        """Return the connection with the response; the caller must release it."""
        start = time.perf_counter()
        connection = await self.pool.acquire(CONNECT_SECONDS)
        try:
            try:
                await connection.send(request, seconds, parts)
            except (Broken, Unreachable) as error:
                stale_get = method == hdrs.METH_GET and connection.was_stale
                if not (stale_get or isinstance(error, Unreachable)):
                    raise
                connection.close()
                connection = await self._connect()
                await connection.send(request, seconds, parts)
        except BaseException:
            self.pool.release(connection)
            raise
        self._took(time.perf_counter() - start)
        return connection

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    Connection,
                    sock=await sockets.connected(self._host, self._port),
                    ssl=self._tls.context() if self._tls else None,
                    server_hostname=self._host if self._tls else None,
                )
        except (OSError, TimeoutError) as error:
            raise Unreachable(repr(error)) from error
        return connection

    def _failed(self, error: Exception) -> Problem:
        status, reason = FAULTS[type(error)]
        metrics.UPSTREAM_FAILURES.labels(self.name, reason).inc()
        log.warning("proxy.failed", upstream=self.name, reason=reason, error=repr(error))
        return Problem(
            status,
            detail=f"the service for this request ({self.name}) is {reason}; try again",
            headers={hdrs.RETRY_AFTER: RETRY_AFTER},
        )
