"""Listening: how long a client may hold a connection, and what is answered before any handler."""

import logging
import secrets
import socket
from asyncio import Transport
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import chain

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from libs.common import logs
from libs.common.service import Service
from libs.common.web import REQUEST_ID, Problem

log = logs.get_logger(__name__)

IDLE_SECONDS = 75.0
"""How long a connection may wait for a whole header; longer than a proxy keeps an idle one (60)."""

LINGER_SECONDS = 10.0
"""How long the rest of a body that was refused is read, so that the client reads the refusal."""

UNREAD_SECONDS = 30.0
"""How long a client may take nothing of an answer; the kernel sees to it."""

MAX_CONNECTIONS = 10_000
"""Of one listener; further ones are closed at once. An idle one costs some 15 KiB (P7)."""

MAX_HEAD = 16 * 1024
"""As Node has it. aiohttp bounds each line and their number: 1 MiB, which it keeps while idle."""


class _Handler(web.RequestHandler):
    _body: StreamReader = EMPTY_PAYLOAD
    """Of the last request whose head is whole."""

    _head = 0
    """Bytes of a head, or of a body's trailers, that is not whole yet."""

    def data_received(self, data: bytes) -> None:
        # In pieces: of what comes in one read with a whole head or the end of a body only that much
        # is not counted. The first even when empty, by which aiohttp goes on with what it has.
        self._take(data[:MAX_HEAD])
        for begin in range(MAX_HEAD, len(data), MAX_HEAD):
            self._take(data[begin : begin + MAX_HEAD])

    def _take(self, data: bytes) -> None:
        body, heads = self._body, self._request_count
        before = None if body.is_eof() else body.total_bytes
        super().data_received(data)
        if self._request_count != heads:
            self._heads_came()
        elif before is not None and (body.total_bytes != before or self._reading_paused):
            self._head = 0
        else:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse_head()

    def _heads_came(self) -> None:
        self._head = 0
        message, body = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self._end_body()
        self._body = body
        if any(_head_size(message) > MAX_HEAD for message, _ in self._messages):
            self._refuse_head()

    def _refuse_head(self) -> None:
        """Answer 400 as its last request, and take nothing more."""
        self._messages.clear()
        self._messages.append((_ErrInfo(400, HttpProcessingError(), ""), EMPTY_PAYLOAD))
        self._close = True
        self._end_body()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end_body(self) -> None:
        """Let nobody wait for the rest of a body behind which no HTTP follows."""
        if not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("what follows is no HTTP"))
            self._body.feed_eof()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        heads = self._request_count
        finished = await super().finish_response(request, resp, start_time)
        if self._request_count != heads:  # they came behind an upgrade that was declined
            self._heads_came()
        body = request.content
        if body.is_eof() and body.exception() is None:
            body.read_nowait()  # what nobody read would stay for as long as the connection is idle
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it shows the request's very bytes
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or what failed before and behind all of our own code."""
        if status == 400:
            # No more than that: those bytes are at worst an e-mail address or a key.
            log.info("http.malformed")
            problem = Problem(400, detail="this is not a request that HTTP/1.1 allows")
        else:
            log.error("http.unanswered", exc_info=exc)
            problem = Problem(status)
        if request.writer.output_size > 0:  # an answer has begun: another one would lie in it
            raise ConnectionError
        response = problem.response()
        response.headers[REQUEST_ID] = secrets.token_hex(16)
        response.force_close()
        return response


def _head_size(message: RawRequestMessage | _ErrInfo) -> int:
    if isinstance(message, _ErrInfo):
        return 0
    return len(message.path) + sum(map(len, chain.from_iterable(message.raw_headers)))


class _Server(web.Server):
    def __call__(self) -> _Handler:
        return _Handler(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > MAX_CONNECTIONS:
            transport.abort()
        elif (connected := transport.get_extra_info("socket")) is not None:
            unread = int(UNREAD_SECONDS * 1000)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread)


class _Runner(web.AppRunner):
    async def _make_server(self) -> _Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, **self._kwargs)


async def serve(
    service: Service, app: web.Application, host: str, port: int, *, shared: bool = False
) -> None:
    """Listen until the service stops; then stop accepting and finish what is in hand.

    :param shared: with other processes of ours on the same port
    """
    logging.getLogger("aiohttp.server").addFilter(_unquoted)
    runner = _Runner(
        app,
        access_log=None,
        shutdown_timeout=20,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGER_SECONDS,
    )
    await service.enter(_cleaned_up(runner))
    await web.TCPSite(runner, host, port, backlog=1024, reuse_port=shared or None).start()


def _unquoted(record: logging.LogRecord) -> bool:
    # Of a body that cannot be parsed aiohttp logs the very bytes, in a traceback.
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.msg, record.exc_info = "http.malformed", None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


async def serve_metrics(
    service: Service,
    host: str,
    port: int,
    registry: CollectorRegistry = REGISTRY,
    more: Iterable[web.AbstractRouteDef] = (),
) -> None:
    """Prometheus' text format on a port of its own, which no client reaches.

    :param more: routes on the same port
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_routes(more)
    await serve(service, app, host, port)


@asynccontextmanager
async def _cleaned_up(runner: web.AppRunner) -> AsyncIterator[None]:
    await runner.setup()
    try:
        yield
    finally:
        await runner.cleanup()
