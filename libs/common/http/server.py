"""Listeners: limits on connections, and graceful shutdown."""

import logging
import resource
import socket
import time
from asyncio import Transport
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from pydantic import SecretStr

from libs.common.http.aiohttp_private import MAX_HEAD, RequestHandler
from libs.common.process import certificate_ends, certificates
from libs.common.process.logs import log
from libs.common.process.metrics import SHARED
from libs.common.process.service import Service
from libs.common.process.settings import ProcessSettings

IDLE_SECONDS = 75.0
"""How long a connection may wait for a complete head; longer than a proxy keeps it idle (60)."""

LINGER_SECONDS = 10.0
"""How long the rest of a rejected body is read, so that the client reads the response."""

UNREAD_SECONDS = 30.0
"""How long a client may stop reading a response; enforced by the kernel."""

MAX_CONNECTIONS = 10_000
"""Per listener. An idle connection costs about 15 KiB (P7)."""

OTHER_DESCRIPTORS = 500
"""File descriptors reserved for files and connections to other servers."""

LOG_SECONDS = 10.0
_DROPPED = SHARED.counter("http_connections_dropped_total")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on a listener's connections. Above them, the longest idle one is closed."""

    connections: int = MAX_CONNECTIONS
    of_a_client: int = MAX_CONNECTIONS
    client_of: Callable[[str], str | None] = lambda _: None
    """Returns the key under which a peer's connections are counted; None: no limit per peer."""


def raise_descriptors(connections: int) -> None:
    """Raise the soft limit of open files to the hard one.

    :raises SystemExit: the hard limit is too low for this many connections
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_DESCRIPTORS
    if resource.RLIM_INFINITY != hard < needed:
        raise SystemExit(
            f"cannot start: {hard} open files are allowed, {needed} are needed for MAX_CONNECTIONS "
            f"= {connections}. Raise the limit (systemd: LimitNOFILE, Docker: ulimits), or lower "
            f"MAX_CONNECTIONS"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Server(web.Server):
    """Keeps connections ordered by last use."""

    def __init__(self, bounds: Bounds, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._bounds = bounds
        self._all: dict[RequestHandler, None] = {}
        self._by_client: dict[str, dict[RequestHandler, None]] = {}
        self._dropped = 0
        self._logged_at = float("-inf")

    def __call__(self) -> RequestHandler:
        return RequestHandler(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: Transport) -> None:
        super().connection_made(handler, transport)
        assert isinstance(handler, RequestHandler)  # noqa: S101 - made by __call__
        if (connected := transport.get_extra_info("socket")) is not None:
            unread = int(UNREAD_SECONDS * 1000)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread)
        self._all[handler] = None
        peer = transport.get_extra_info("peername")
        if peer and (client := self._bounds.client_of(peer[0])) is not None:
            handler.client = client
            same = self._by_client.setdefault(client, {})
            same[handler] = None
            if len(same) > self._bounds.of_a_client:
                self._drop_longest_idle(same, "client")
        if len(self._all) > self._bounds.connections:
            self._drop_longest_idle(self._all, "all")

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        assert isinstance(handler, RequestHandler)  # noqa: S101 - made by __call__
        if handler.task is None:
            self._forget(handler)
        else:  # its handler still holds memory
            handler.task.add_done_callback(lambda _: self._forget(handler))

    def used(self, handler: RequestHandler) -> None:
        same = self._by_client.get(handler.client or "", {})
        for among in (self._all, same):
            if handler in among:
                del among[handler]
                among[handler] = None

    def _forget(self, handler: RequestHandler) -> None:
        self._all.pop(handler, None)
        if handler.client in self._by_client:
            same = self._by_client[handler.client]
            same.pop(handler, None)
            if not same:
                del self._by_client[handler.client]

    def _drop_longest_idle(self, among: dict[RequestHandler, None], bound: str) -> None:
        # The new one is idle too, and is closed if every other one is busy.
        dropped = next(handler for handler in among if handler.idle)
        self._forget(dropped)  # now: many may come before the loop reports it as lost
        if dropped.transport is not None:
            dropped.transport.abort()
        _DROPPED.labels(bound).inc()
        self._dropped += 1
        if (now := time.monotonic()) - self._logged_at > LOG_SECONDS:
            log.warning("http.connections_dropped", bound=bound, dropped=self._dropped)
            self._dropped, self._logged_at = 0, now


class _Runner(web.AppRunner):
    def __init__(self, bounds: Bounds, app: web.Application, **options: Any) -> None:
        super().__init__(app, **options)
        self._bounds = bounds

    async def _make_server(self) -> _Server:
        made = await super()._make_server()
        return _Server(
            self._bounds,
            made.request_handler,
            request_factory=made.request_factory,
            **self._kwargs,
        )

    async def __aenter__(self) -> Self:
        await self.setup()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cleanup()

    drain = web.AppRunner.cleanup  # it stops accepting, and finishes the requests in flight


async def serve(
    service: Service,
    app: web.Application,
    host: str,
    port: int,
    *,
    shared: bool = False,
    bounds: Bounds = Bounds(),
    tls_dir: Path | None = None,
    https_port: int | None = None,
) -> None:
    """Listen until the service stops; then stop accepting and finish the requests in flight.

    A service that is about to stop closes each connection after its response, so that clients
    connect elsewhere and no request meets the end.

    :param shared: share the port with other processes
    :param tls_dir: if it has a certificate, speak HTTPS, to clients with a certificate only
    :param https_port: speak HTTPS there, and HTTP on `port`
    """
    logging.getLogger("aiohttp.server").addFilter(_unquoted)
    runner = _Runner(
        bounds,
        app,
        access_log=None,
        shutdown_timeout=20,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGER_SECONDS,
        read_bufsize=MAX_HEAD,  # limit of an unread body, even if it is compressed
    )

    async def close_behind(_: web.Request, response: web.StreamResponse) -> None:
        if service.leaving:
            response.headers[hdrs.CONNECTION] = "close"  # aiohttp has made its own already
            response.force_close()

    app.on_response_prepare.append(close_behind)
    await service.enter(runner)
    tls = certificates.server(tls_dir) if tls_dir and certificates.is_complete(tls_dir) else None
    listeners = {port: tls} if https_port is None else {port: None, https_port: tls}
    for each, context in listeners.items():
        await web.TCPSite(
            runner, host, each, backlog=1024, reuse_port=shared or None, ssl_context=context
        ).start()


def _unquoted(record: logging.LogRecord) -> bool:
    # aiohttp logs the raw bytes of an unparsable body in a traceback.
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.msg, record.exc_info = "http.malformed", None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


async def serve_all(
    service: Service,
    app: web.Application,
    settings: ProcessSettings,
    links: Mapping[str, SecretStr] = {},
) -> None:
    """Serve a service and its metrics, and watch the certificates of its links.

    :param links: links beyond the servers in its settings
    """
    watch = certificate_ends.watch(settings.tls_dir, settings.servers | {**links})
    service.spawn("certificates", watch)
    await serve_metrics(service, settings.http_host, settings.metrics_port)
    await serve(service, app, settings.http_host, settings.http_port, tls_dir=settings.tls_dir)


async def serve_metrics(
    service: Service, host: str, port: int, registry: CollectorRegistry = REGISTRY
) -> None:
    """Serve metrics in Prometheus' text format, on a port that no client reaches."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    await serve(service, app, host, port)
