"""Without aiohttp's own heads, each request gets the same bytes as with them."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from aiohttp import hdrs, web

from libs.common.http import application, fast_response, server
from libs.common.http.application import Problem, json_response
from libs.common.process.service import Service
from services.gateway.door.body_budget import accept_body
from services.gateway.door.cors import Cors
from services.gateway.http import _expect_later
from services.gateway.pages import files as pages
from tests.support.ports import HOST, Ports

LINES = "Host: x\r\nX-Request-ID: 0123456789abcdef\r\n"
BODY = "Content-Length: 2\r\n\r\n{}"
REQUESTS = {
    "POST": f"POST /api/echo HTTP/1.1\r\n{LINES}{BODY}",
    "GET": f"GET /api/echo HTTP/1.1\r\n{LINES}\r\n",
    "HEAD": f"HEAD /api/echo HTTP/1.1\r\n{LINES}\r\n",
    "HTTP/1.0": f"POST /api/echo HTTP/1.0\r\n{LINES}{BODY}",
    "HTTP/1.0 that stays": f"POST /api/echo HTTP/1.0\r\nConnection: keep-alive\r\n{LINES}{BODY}",
    "HEAD of HTTP/1.0": f"HEAD /api/echo HTTP/1.0\r\n{LINES}\r\n",
    "close": f"POST /api/echo HTTP/1.1\r\nConnection: close\r\n{LINES}{BODY}",
    "a body that is awaited": f"POST /api/echo HTTP/1.1\r\nExpect: 100-continue\r\n{LINES}{BODY}",
    "an unknown expectation": f"POST /api/echo HTTP/1.1\r\nExpect: more\r\n{LINES}{BODY}",
    "aiohttp's own 417": f"POST /echo HTTP/1.1\r\nExpect: more\r\n{LINES}{BODY}",
    "another method": f"PUT /api/echo HTTP/1.1\r\n{LINES}{BODY}",
    "an allowed origin": f"GET /api/echo HTTP/1.1\r\nOrigin: https://site.example\r\n{LINES}\r\n",
    "a page's error": f"GET /unsubscribe HTTP/1.1\r\n{LINES}\r\n",
    "a problem": f"GET /api/problem HTTP/1.1\r\n{LINES}\r\n",
    "no content": f"GET /api/empty HTTP/1.1\r\n{LINES}\r\n",
    "an upgrade": f"GET /api/echo HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n{LINES}\r\n",
}


async def echo(request: web.Request) -> web.Response:
    await accept_body(request)
    return json_response([request.method, (await request.read()).decode()])


async def refused(_: web.Request) -> web.Response:
    raise Problem(409, detail="not now", headers={hdrs.RETRY_AFTER: "3"})


async def empty(_: web.Request) -> web.Response:
    return fast_response.FastResponse(status=204)


def gateway_like() -> web.Application:
    app = application.create_app(internal_key=None)
    cors = Cors("https://site.example", https=True)
    app.middlewares.insert(1, pages.errors_as_pages)
    app.middlewares.append(cors.preflight)
    app.on_response_prepare.append(cors.finish)
    for method, path, handler in (
        ("GET", "/api/echo", echo),
        ("HEAD", "/api/echo", echo),
        ("POST", "/api/echo", echo),
        ("GET", "/unsubscribe", refused),
        ("GET", "/api/problem", refused),
        ("GET", "/api/empty", empty),
    ):
        app.router.add_route(method, path, handler, expect_handler=_expect_later)
    app.router.add_post("/echo", echo)  # with aiohttp's own way of expectations
    return app


@pytest.fixture
async def port(ports: Ports) -> AsyncIterator[int]:
    service, port = Service("test"), ports.take()
    await server.serve(service, gateway_like(), HOST, port)
    yield port
    await service.close()


async def conversation(port: int, request: str) -> bytes:
    """Send it, and when its answer begins another: it is answered if the connection stays open."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request.encode())
    async with asyncio.timeout(10):
        answered = await reader.read(1)
        writer.write(f"GET /api/echo HTTP/1.1\r\nConnection: close\r\n{LINES}\r\n".encode())
        with suppress(ConnectionError):
            while part := await reader.read(65536):
                answered += part
    writer.close()
    assert b"X-Request-ID: " in answered
    return re.sub(rb"(Date|X-Request-ID): [^\r]*", rb"\1: new", answered)


async def test_each_request_is_answered_as_by_aiohttp_alone(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        for name in ("prepare", "write_eof"):
            patched.setattr(fast_response.FastResponse, name, getattr(web.Response, name))
        expected = {name: await conversation(port, sent) for name, sent in REQUESTS.items()}
    for name, sent in REQUESTS.items():
        assert expected[name].startswith(b"HTTP/1."), name
        assert await conversation(port, sent) == expected[name], name


async def test_no_service_names_its_software(ports: Ports) -> None:
    service, port = Service("test"), ports.take()
    await server.serve(service, application.create_app(internal_key="key"), HOST, port)
    for version in ("1.0", "1.1"):  # the first is aiohttp's own head
        answered = await conversation(port, f"GET /health HTTP/{version}\r\n{LINES}\r\n")
        assert b"200 OK" in answered
        assert b"\r\nServer: " not in answered
    await service.close()
