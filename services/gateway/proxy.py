"""Forwarding to the service that owns a route.

A request's body (256 KiB at most) is read before the owner is asked, so that a slow client holds
none of the owner's connections; the answer is streamed. What a client may send on is an allow-list:
neither hop-by-hop headers nor keys nor forged internal headers get past this module.
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
    hdrs,
    web,
)
from multidict import CIMultiDict
from yarl import URL

from libs.common import logs
from libs.common.web import CALLER, CLIENT_ADDRESS, INTERNAL_KEY, REQUEST_ID, Problem
from services.gateway import metrics
from services.gateway.clients import Client, Role

log = logs.get_logger(__name__)

CONNECTIONS = 100
CONNECT_SECONDS = 3.0
STREAM_FROM = 64 * 1024
RETRY_AFTER = "2"

FORWARDED = (
    hdrs.ACCEPT,
    hdrs.ACCEPT_LANGUAGE,
    hdrs.CONTENT_TYPE,
    hdrs.USER_AGENT,
    "Idempotency-Key",
)
OPERATOR = "X-Operator"
HOP_BY_HOP = frozenset(
    name.lower()
    for name in (
        hdrs.CONNECTION,
        hdrs.KEEP_ALIVE,
        hdrs.PROXY_AUTHENTICATE,
        hdrs.PROXY_AUTHORIZATION,
        hdrs.TE,
        hdrs.TRAILER,
        hdrs.TRANSFER_ENCODING,
        hdrs.UPGRADE,
    )
)
OURS = frozenset(name.lower() for name in (hdrs.CONTENT_LENGTH, hdrs.DATE, hdrs.SERVER, REQUEST_ID))


class Upstream:
    """One owner: its address, and a bounded pool of connections to it."""

    def __init__(self, name: str, url: str, session: ClientSession, internal_key: str) -> None:
        self.name = name
        self._base = url
        self._session = session
        self._internal_key = internal_key

    @classmethod
    @asynccontextmanager
    async def open(
        cls, name: str, url: str, internal_key: str, *, answer_seconds: float
    ) -> AsyncIterator[Self]:
        session = ClientSession(
            connector=TCPConnector(limit=CONNECTIONS),
            timeout=ClientTimeout(
                total=None,
                connect=CONNECT_SECONDS,  # the wait for a free connection of the pool included
                sock_connect=CONNECT_SECONDS,
                sock_read=answer_seconds,
            ),
            auto_decompress=False,
            cookie_jar=DummyCookieJar(),
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING),
        )
        async with session:
            yield cls(name, url, session, internal_key)

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - aiohttp's own
    ) -> AsyncIterator[ClientResponse]:
        """Send a request with our internal key.

        :raises Problem: 503 not reached, so nothing happened; 502, 504 what happened is unknown
        """
        start = time.perf_counter()
        try:
            async with self._session.request(
                method,
                URL(self._base + path, encoded=True),
                headers={**(headers or {}), INTERNAL_KEY: self._internal_key},
                data=body,
                allow_redirects=False,
                timeout=ClientTimeout(total=timeout) if timeout else None,
            ) as response:
                metrics.UPSTREAM_SECONDS.labels(self.name).observe(time.perf_counter() - start)
                yield response
        except (ClientConnectorError, ConnectionTimeoutError) as error:
            raise self._failed(503, "unreachable", error) from None
        except TimeoutError as error:
            raise self._failed(504, "timeout", error) from None
        except (ClientError, OSError) as error:
            raise self._failed(502, "broken", error) from None

    def _failed(self, status: int, reason: str, error: Exception) -> Problem:
        metrics.UPSTREAM_FAILURES.labels(self.name, reason).inc()
        log.warning("proxy.failed", upstream=self.name, reason=reason, error=type(error).__name__)
        return Problem(
            status,
            detail=f"the part of the system that answers this ({self.name}) is {reason}; try again",
            headers={hdrs.RETRY_AFTER: RETRY_AFTER},
        )


def outgoing_headers(request: web.Request, client: Client, request_id: str) -> dict[str, str]:
    headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
    headers[REQUEST_ID] = request_id
    headers[CLIENT_ADDRESS] = client.address
    headers[CALLER] = client.role
    if client.role is Role.ADMIN and OPERATOR in request.headers:
        headers[OPERATOR] = request.headers[OPERATOR]
    return headers


def answer_headers(response: ClientResponse) -> CIMultiDict[str]:
    """Return the end-to-end headers of an answer (RFC 9110, section 7.6.1)."""
    named = ",".join(response.headers.getall(hdrs.CONNECTION, ())).lower().split(",")
    dropped = HOP_BY_HOP | OURS | {name.strip() for name in named}
    return CIMultiDict(
        (name, value) for name, value in response.headers.items() if name.lower() not in dropped
    )


async def forward(
    request: web.Request, upstream: Upstream, headers: Mapping[str, str], body: bytes | None
) -> web.StreamResponse:
    """Send the request on, path and query unchanged, and its answer back."""
    method = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
    path = request.rel_url.raw_path_qs
    async with upstream.ask(method, path, headers=headers, body=body) as answer:
        size = answer.content_length
        if size is not None and size <= STREAM_FROM:
            return web.Response(
                status=answer.status, headers=answer_headers(answer), body=await answer.read()
            )
        return await _stream(request, answer)


async def _stream(request: web.Request, answer: ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer_headers(answer))
    if answer.content_length is not None:
        response.content_length = answer.content_length
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_chunked(STREAM_FROM):
            await response.write(chunk)
        await response.write_eof()
    except (TimeoutError, ClientError, OSError) as error:
        # The status has left: only a cut connection tells the client that the rest is missing.
        log.warning("proxy.cut", error=type(error).__name__)
        if request.transport is not None:
            request.transport.abort()
    return response
