"""The channel `apprise` against a server that accepts Apprise's json://."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.alerts.channels import opened
from services.alerts.channels.channel import Target
from services.alerts.rules.delivery import Kind, Reason
from tests.support.targets import (
    LOOPBACK,
    TEMPLATES,
    answer,
    answering,
    http_target,
    job,
    listening,
    request,
    send,
)


class Receiver:
    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def take(self, received: web.Request) -> web.Response:
        self.got.append(await received.json())
        await self.go_on.wait()
        return web.Response(status=self.status)


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def url(receiver: Receiver) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    async with TestServer(app) as server:
        yield f"json://user:topsecret@{server.host}:{server.port}/hook"


def target(url: str, **options: Any) -> Target:
    return http_target("apprise", url, **options)


async def test_an_alert_arrives_with_title_and_severity(receiver: Receiver, url: str) -> None:
    async with opened("any", target(url), TEMPLATES, LOOPBACK) as channel:
        sent = job(severity="critical", text="Zażółć gęślą jaźń", subject="Dysk")
        outcome = await channel.send(sent)
    assert outcome.kind is Kind.DELIVERED
    (got,) = receiver.got
    assert (got["message"], got["title"], got["type"]) == ("Zażółć gęślą jaźń", "Dysk", "failure")


async def test_a_refusal_is_a_failure_whose_excerpt_has_no_secret(
    receiver: Receiver, url: str
) -> None:
    receiver.status = 503
    async with opened("any", target(url), TEMPLATES, LOOPBACK) as channel:
        outcome = await channel.send(job(text="x"))
    assert (outcome.kind, outcome.reason) == (Kind.FAILED, Reason.BAD_ANSWER)
    assert "503" in outcome.excerpt
    assert "topsecret" not in outcome.excerpt


async def test_an_unsupported_url_stops_the_start_without_showing_a_secret() -> None:
    with pytest.raises(SystemExit, match=r"targets\.any\.url") as stopped:
        await send(target("nonsense://topsecret"))
    assert "topsecret" not in str(stopped.value)


async def test_a_dripping_response_holds_no_thread_after_the_time_out() -> None:
    asked = 0

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await request(reader)
        asked += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with listening(drip) as port:
        dripping = target(f"json://127.0.0.1:{port}/", timeout=0.5, concurrency=1)
        async with opened("any", dripping, TEMPLATES, LOOPBACK) as channel:
            for _ in range(3):
                assert (await channel.send(job())).reason is Reason.TIMEOUT
    assert asked == 3  # each got the only thread


async def test_a_redirect_is_not_followed(receiver: Receiver, url: str) -> None:
    location = f"Location: http{url.removeprefix('json')}"
    async with listening(answering(answer(307, b"", location))) as port:
        outcome = await send(target(f"json://127.0.0.1:{port}/"))
    assert outcome.kind is Kind.FAILED
    assert receiver.got == []
