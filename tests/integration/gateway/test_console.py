"""The console behind the gateway: its pages pass as they are, and its people are believed."""

import asyncio
import base64
import signal
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from libs.domain.scopes import operator_action
from libs.domain.signed_links import Tokens
from tests.integration.gateway.conftest import NOBODY, Gateway, Owner, StartGateway
from tests.support.console import INTERNAL_KEY

SITE = "https://www.example.com"
OPERATOR_KEYS = "o1:" + base64.b64encode(b"o" * 32).decode()


@pytest.fixture
def with_console(owner: Owner) -> dict[str, str]:
    return {
        "CONSOLE_URL": owner.url,
        "CONSOLE_INTERNAL_KEY": INTERNAL_KEY,
        "OPERATOR_KEYS": OPERATOR_KEYS,
    }


def reached(owner: Owner) -> list[dict[str, Any]]:
    """Return what reached the console's pages; the gateway also asks it for keys."""
    return [each for each in owner.received if each["path"].startswith("/console")]


async def test_a_page_passes_both_ways_as_it_is(
    start_gateway: StartGateway, owner: Owner, with_console: dict[str, str]
) -> None:
    gateway = await start_gateway(**with_console)

    async def saved(_: web.Request) -> web.Response:
        response = web.Response(status=303, headers={"Location": "/console/leads"})
        response.headers.add("Set-Cookie", "__Host-ostoja=a; Secure")
        response.headers.add("Set-Cookie", "language=pl")
        response.headers["Content-Security-Policy"] = "default-src 'none'; script-src 'self'"
        return response

    owner.handle = saved
    sent = {
        "Cookie": "__Host-ostoja=b",
        "Origin": SITE,
        "Sec-Fetch-Site": "same-origin",
        "X-Refresh": "1",
        "Content-Type": "application/x-www-form-urlencoded",
        "X-ADMIN-API-KEY": "admin-key-of-tests",
        "X-Operator": "the owner",
        "X-Internal-Key": "guessed",
    }
    answer = await gateway.send("POST", "/console/leads/7/take?tab=1", sent, data=b"reason=x")
    assert (answer.status, answer.headers["Location"]) == (303, "/console/leads")
    cookies = answer.headers.getall("Set-Cookie")
    assert cookies == ["__Host-ostoja=a; Secure", "language=pl"]
    assert answer.headers["Content-Security-Policy"].endswith("script-src 'self'")
    (page,) = reached(owner)
    assert (page["path"], page["body"]) == ("/console/leads/7/take?tab=1", "reason=x")
    passed = ("Cookie", "Origin", "Sec-Fetch-Site", "X-Refresh", "Content-Type")
    assert {name: page["headers"][name] for name in passed} == {name: sent[name] for name in passed}
    assert page["headers"]["X-Internal-Key"] == INTERNAL_KEY
    assert page["headers"]["X-Caller"] == "public"
    assert "X-ADMIN-API-KEY" not in page["headers"]


async def test_it_never_has_cors_headers_and_no_path_leads_out_of_it(
    start_gateway: StartGateway, owner: Owner, with_console: dict[str, str]
) -> None:
    gateway = await start_gateway(**with_console, CORS_ORIGINS="*")
    asks = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    for method, path in (("OPTIONS", "/console/login"), ("GET", "/console"), ("POST", "/console/")):
        answer = await gateway.send(method, path, asks)
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
    assert (await gateway.send("GET", "/api/health", asks)).headers["Access-Control-Allow-Origin"]
    before = len(reached(owner))
    for path in (
        "/console/../internal/keys/sync",
        "/console/%2e%2e/internal/keys/sync",
        "/console/..%2finternal/keys/sync",
        "/consoles",
    ):
        assert (await gateway.send("POST", path, {})).status == 404, path
    assert len(reached(owner)) == before


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_tries_to_log_in_are_counted_by_address_and_pages_apart(
    start_gateway: StartGateway, with_console: dict[str, str], mode: str
) -> None:
    """In the trial mode of limits, too: passwords are guessed there as well."""
    limits = {"LOGIN_RATE_LIMIT": "2 per day", "CONSOLE_RATE_LIMIT": "3 per day"}
    gateway = await start_gateway(**with_console, **limits, RATE_LIMIT_MODE=mode)
    tries = [await gateway.send("POST", "/console/login", {}, data=b"x") for _ in range(3)]
    assert [answer.status for answer in tries] == [200, 200, 429]
    assert tries[2].headers["Content-Type"].startswith("text/html")
    pages = [(await gateway.send("GET", "/console/login")).status for _ in range(4)]
    assert pages == [200, 200, 200, 429 if mode == "enforce" else 200]


async def test_a_stop_waits_for_no_stream_that_an_open_page_reads(
    start_gateway: StartGateway, owner: Owner, with_console: dict[str, str]
) -> None:
    gateway = await start_gateway(**with_console)

    async def forever(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: leads\n\n")
        await asyncio.sleep(60)
        return response

    owner.handle = forever
    async with gateway.session.get(f"{gateway.url}/console/events") as stream:
        assert await stream.content.readline() == b"data: leads\n"
        gateway.process.send_signal(signal.SIGTERM)
        # It would wait 20 s for an answer that is under way, and then say that it failed.
        assert await asyncio.to_thread(gateway.process.wait, 15) == 0
        with pytest.raises(aiohttp.ClientError):
            await stream.content.read()


@pytest.mark.parametrize(("language", "said"), [("pl", "Konsola"), ("en", "The console")])
async def test_while_the_console_is_away_a_page_says_so(
    start_gateway: StartGateway, with_console: dict[str, str], language: str, said: str
) -> None:
    gateway = await start_gateway(**with_console | {"CONSOLE_URL": NOBODY})
    answer = await gateway.send("GET", "/console/leads", {"Accept-Language": language})
    assert answer.status == 503
    assert f"<h1>{said}" in answer.body
    assert (await gateway.call("GET", "/api/health")).status == 200


async def test_without_a_console_there_is_none(gateway: Gateway) -> None:
    assert (await gateway.call("GET", "/console/")).status == 404


async def test_a_person_of_the_console_is_named_to_the_services(
    start_gateway: StartGateway, owner: Owner, with_console: dict[str, str]
) -> None:
    gateway = await start_gateway(**with_console)

    async def call(gateway: Gateway, path: str, roles: str, method: str = "GET") -> int:
        action = operator_action(method, path)
        token = Tokens(OPERATOR_KEYS).sign("7 Zoë Żak", roles, action, datetime.now(UTC))
        headers = {"X-Operator-Token": token, "X-Operator": "the owner"}
        return (await gateway.send(method, path, headers)).status

    assert await call(gateway, "/api/leads", "sales") == 200
    (lead,) = owner.of("/api/leads")
    assert lead["headers"]["X-Caller"] == "service"
    assert lead["headers"]["X-Operator"].encode("utf-8", "surrogateescape").decode() == (
        "staff:7 Zoë Żak"
    )
    assert lead["headers"]["X-Operator-Roles"] == "sales"
    assert "X-Operator-Token" not in lead["headers"]
    assert await call(gateway, "/api/dlq/stats", "viewer") == 200
    (stats,) = owner.of("/api/dlq/stats")
    assert stats["headers"]["X-Caller"] == "admin"
    assert await call(gateway, "/api/dlq/stats", "sales") == 403
    # What everybody may do gives a person no more rights, and is recorded as theirs.
    assert await call(gateway, "/api/unsubscribe", "privacy", "POST") == 200
    (open_to_all,) = owner.of("/api/unsubscribe")
    assert open_to_all["headers"]["X-Caller"] == "public"
    assert open_to_all["headers"]["X-Operator-Roles"] == "privacy"
    assert open_to_all["headers"]["X-Operator"].startswith("staff:7 ")
    assert (
        await call(
            await start_gateway(**with_console | {"OPERATOR_KEYS": ""}), "/api/leads", "sales"
        )
        == 401
    )
