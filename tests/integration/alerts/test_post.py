"""HTTP POSTs: what is sent, over which connection, and that it is sent once."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.alerts.channels import Channel, opened, post
from services.alerts.rules.delivery import Kind, Reason
from tests.support.certificates import Authority
from tests.support.ports import HOST
from tests.support.scripted import OK, Play, ScriptedServer, answering, until_closed
from tests.support.targets import LOOPBACK, TEMPLATES, http_target, job

FAILED_CONNECTION = (Kind.FAILED, Reason.CONNECTION)


@asynccontextmanager
async def slack(
    *plays: Callable[[ScriptedServer], Play],
    host: str = HOST,
    path: str = "/hook",
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[tuple[ScriptedServer, Channel]]:
    """Open a channel to a scripted target."""
    server = ScriptedServer(*plays)
    listening = await asyncio.start_server(server.accept, HOST, 0, ssl=tls)
    url = f"http{'s' if tls else ''}://{host}:{listening.sockets[0].getsockname()[1]}{path}"
    async with (
        listening,
        opened("any", http_target("slack", url, **options), TEMPLATES, LOOPBACK) as channel,
    ):
        yield server, channel


async def said(channel: Channel) -> tuple[Kind, Reason]:
    outcome = await channel.send(job())
    return outcome.kind, outcome.reason


async def test_one_connection_is_reused_for_several_alerts() -> None:
    async with slack(answering(OK, OK, OK, then=until_closed)) as (target, channel):
        for _ in range(3):
            assert (await channel.send(job())).kind is Kind.DELIVERED
    assert target.connections == 1
    assert len(target.requests) == 3


async def test_a_request_is_what_its_target_expects() -> None:
    place: dict[str, Any] = {"host": "user:p%40ss@localhost", "path": "/a b/ą?key=x%26y#part"}
    async with slack(answering(OK), **place) as (target, channel):
        assert (await channel.send(job())).kind is Kind.DELIVERED
    head, _, body = target.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    sent = dict(header.split(": ", 1) for header in headers)
    assert line == "POST /a%20b/%C4%85?key=x%26y HTTP/1.1"
    assert headers[0].startswith("Host: localhost:")
    assert sent["Content-Length"] == str(len(body))
    assert sent["Content-Type"] == "application/json"
    assert sent["Accept-Encoding"] == "identity"
    assert sent["Authorization"] == f"Basic {b64encode(b'user:p@ss').decode()}"


async def test_an_alert_on_a_closing_connection_is_not_sent_twice() -> None:
    def cut(server: ScriptedServer) -> Play:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answering(OK)(server)(reader, writer)
            await server.read(reader)

        return play

    async with slack(cut, answering(OK)) as (target, channel):
        assert (await channel.send(job())).kind is Kind.DELIVERED
        assert await said(channel) == FAILED_CONNECTION
        assert len(target.requests) == 2
        assert (await channel.send(job())).kind is Kind.DELIVERED


async def test_an_unfinished_response_closes_its_connection() -> None:
    endless = b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + b"x" * 0x20000
    async with slack(answering(endless, then=until_closed), answering(OK, then=until_closed)) as (
        target,
        channel,
    ):
        assert await said(channel) == (Kind.FAILED, Reason.SERVER_ERROR)
        await target.gone.wait()
        assert (await channel.send(job())).kind is Kind.DELIVERED


async def test_connections_are_bounded_by_the_targets_concurrency() -> None:
    async with slack(answering(*[OK] * 20, then=until_closed), concurrency=2) as (target, channel):
        outcomes = await asyncio.gather(*(channel.send(job()) for _ in range(20)))
    assert {outcome.kind for outcome in outcomes} == {Kind.DELIVERED}
    assert target.connections == 2


async def test_waiting_for_a_connection_ends_at_the_time_out() -> None:
    async with slack(answering(then=until_closed), concurrency=1, timeout=0.3) as (_, channel):
        outcomes = await asyncio.gather(*(channel.send(job()) for _ in range(3)))
    assert {outcome.reason for outcome in outcomes} == {Reason.TIMEOUT}


@pytest.mark.parametrize("at", ["answer", "handshake"])
@pytest.mark.parametrize("how", ["cancelled", "time-out"])
async def test_a_send_that_ends_early_leaves_no_connection(at: str, how: str) -> None:
    heard = asyncio.Event()
    gone = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # of the request, or of the greeting that TLS begins with
        heard.set()
        await until_closed(reader, writer)
        gone.set()
        writer.close()

    server = await asyncio.start_server(hang, HOST, 0)
    scheme = "https" if at == "handshake" else "http"
    url = f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}/"
    target = http_target("slack", url, timeout=0.3 if how == "time-out" else 30.0)
    async with server, opened("any", target, TEMPLATES, LOOPBACK) as channel:
        sending = asyncio.create_task(channel.send(job()))
        await heard.wait()
        if how == "cancelled":
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        else:
            assert (await sending).reason is Reason.TIMEOUT
        async with asyncio.timeout(10):
            await gone.wait()


@pytest.mark.parametrize(("named", "kind"), [("localhost", Kind.DELIVERED), ("b.example", None)])
async def test_a_certificate_must_be_for_the_configured_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, kind: Kind | None
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    post._tls.cache_clear()
    async with slack(answering(OK), host="localhost", tls=authority.server(named)) as (
        target,
        channel,
    ):
        assert await said(channel) == ((kind, Reason.OK) if kind else FAILED_CONNECTION)
    assert len(target.requests) == bool(kind)
