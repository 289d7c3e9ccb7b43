"""Ping URLs of jobs: no key, no database, and nothing from whoever has no signed URL."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from libs.domain.signed_links import Tokens
from tests.integration.gateway.conftest import Gateway, Owner, StartGateway
from tests.support.contracts import golden

PING_KEYS = "p1:" + base64.b64encode(b"p" * 32).decode()
JOB = "9b2e8a52-0f0d-4c3b-8a44-1f6d3a1f2b7c"


def path(version: int = 0, action: str = "ping", keys: str = PING_KEYS) -> str:
    return f"/ping/{Tokens(keys).sign(JOB, str(version), action, datetime.now(UTC))}"


@pytest.fixture
async def pinged(start_gateway: StartGateway, owner: Owner) -> Gateway:
    owner.say(status=202)
    return await start_gateway(PING_KEYS=PING_KEYS, API_RATE_LIMIT_MINUTE="9 per day")


def taken(owner: Owner) -> list[dict[str, Any]]:
    return [json.loads(each["body"]) for each in owner.of("/internal/pings")]


async def test_each_signal_is_passed_on_with_its_time(pinged: Gateway, owner: Owner) -> None:
    signals = (
        ("GET", "", "success", None),
        ("HEAD", "", "success", None),
        ("POST", "", "success", None),
        ("POST", "/start", "start", None),
        ("GET", "/fail", "fail", None),
        ("POST", "/0", "success", 0),
        ("POST", "/3", "fail", 3),
        ("POST", "/3221225477", "fail", 3221225477),
    )
    for method, signal, kind, code in signals:
        before = datetime.now(UTC)
        assert (await pinged.send(method, path() + signal)).status == 200
        ping = taken(owner)[-1]
        assert ping.keys() == golden("heartbeat.ping").keys()
        assert (ping["heartbeat"], ping["kind"], ping["code"]) == (JOB, kind, code)
        assert before <= datetime.fromisoformat(ping["at"]) <= datetime.now(UTC)


async def test_the_end_of_a_log_is_passed_on_and_one_that_is_too_large_is_left_out(
    pinged: Gateway, owner: Owner
) -> None:
    for log in (b"a\0\xff", b"x" * 20_000 + b"end", b"y" * 300_000):
        assert (await pinged.send("POST", path() + "/1", data=log)).status == 200
    small, long, large = [ping["log"] for ping in taken(owner)]
    assert small == "a\ufffd"
    assert (len(long), long[-3:]) == (10 * 1024, "end")
    assert "left out" in large


async def test_a_stranger_reaches_nobody_and_is_limited_by_address(
    pinged: Gateway, owner: Owner
) -> None:
    other = "p1:" + base64.b64encode(b"q" * 32).decode()
    forged = [path(keys=other), path(action="unsubscribe"), "/ping/x", path()[:-1]]
    assert [(await pinged.send("GET", each)).status for each in forged] == [404] * 4
    assert (await pinged.send("GET", path() + "/end")).status == 404
    statuses = [(await pinged.send("GET", "/ping/x")).status for _ in range(8)]
    assert statuses[-1] == 429
    assert (await pinged.send("GET", path())).status == 200  # by its own count
    assert len(taken(owner)) == 1


async def test_each_url_has_limits_of_its_own(pinged: Gateway) -> None:
    first, second = path(1), path(2)
    statuses = [(await pinged.send("GET", first)).status for _ in range(11)]
    assert statuses == [200] * 9 + [429] * 2
    assert (await pinged.send("GET", second)).status == 200


async def test_what_neither_the_broker_nor_alerts_takes_is_not_answered_200(
    pinged: Gateway, owner: Owner
) -> None:
    owner.say(status=500)
    assert (await pinged.send("GET", path())).status == 503


async def test_without_keys_there_is_no_ping_url(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    assert (await gateway.send("GET", path())).status == 404
