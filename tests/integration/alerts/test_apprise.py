"""The channel `apprise` against a server that takes what Apprise's json:// sends."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.alerts.alert import Kind, Reason
from services.alerts.channels import opened
from services.alerts.config import Target
from tests.support.targets import LOOPBACK, TEMPLATES, http_target, job, send


class Receiver:
    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
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


async def test_a_refusal_is_a_failure_whose_reason_names_no_secret(
    receiver: Receiver, url: str
) -> None:
    receiver.status = 503
    async with opened("any", target(url), TEMPLATES, LOOPBACK) as channel:
        outcome = await channel.send(job(text="x"))
    assert (outcome.kind, outcome.reason) == (Kind.FAILED, Reason.BAD_ANSWER)
    assert "503" in outcome.excerpt
    assert "topsecret" not in outcome.excerpt


async def test_nobody_listening_is_a_failure() -> None:
    async with opened("any", target("json://127.0.0.1:9/hook"), TEMPLATES, LOOPBACK) as channel:
        assert (await channel.send(job(text="x"))).kind is Kind.FAILED


async def test_a_hanging_service_costs_its_time_box_and_neither_the_loop_nor_the_exit(
    receiver: Receiver, url: str
) -> None:
    receiver.go_on.clear()
    start = monotonic()
    async with opened(
        "any", target(url, timeout=0.5, concurrency=2), TEMPLATES, LOOPBACK
    ) as channel:
        outcomes = await asyncio.gather(*(channel.send(job(text=str(n))) for n in range(5)))
    assert {outcome.reason for outcome in outcomes} == {Reason.TIMEOUT}
    assert len(receiver.got) <= 4  # the rest never had a thread
    assert monotonic() - start < 5
    receiver.go_on.set()


async def test_an_unknown_service_stops_the_start_by_name_and_tells_no_secret() -> None:
    with pytest.raises(SystemExit, match=r"targets\.any\.url") as stopped:
        await send(target("nonsense://topsecret"))
    assert "topsecret" not in str(stopped.value)
