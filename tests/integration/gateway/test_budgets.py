"""What all visitors share: invalid requests spend none of it, and no network more than a part.

Windows of a day, so that no test runs over the end of one.
"""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from deploy.up.servers import Redis
from tests.integration.gateway.conftest import SERVICE, Gateway, Owner, StartGateway
from tests.integration.gateway.test_limits import statuses, times_said
from tests.support.forms import SITE, config
from tests.support.service import Answer

pytestmark = pytest.mark.promise("P8")

CHAT, OPT_IN, LEADS = "/api/chatbot/chat", "/api/opt-in", "/api/leads"
PROXIED = {"TRUSTED_PROXIES": "127.0.0.0/8"}
GOOD = {"message": "Dzień dobry", "session_id": "s1"}


@pytest.fixture(autouse=True)
def service(owner: Owner) -> None:
    """Refuse what has no message, as the services do."""

    async def handle(request: web.Request) -> web.Response:
        if request.path == "/internal/leads":
            return web.json_response({}, status=202)
        if request.path == "/health/deep":
            return web.json_response({"status": "healthy", "components": {}})
        try:
            good = "message" in await request.json()
        except ValueError:
            good = False
        return web.json_response({}, status=200 if good else 422)

    owner.handle = handle


def networks() -> Iterable[str]:
    """Yield addresses, each of another /24."""
    return (f"10.{number // 256}.{number % 256}.7" for number in count())


async def send(
    gateways: Sequence[Gateway], path: str, bodies: Iterable[tuple[str, Any]], at_once: int = 100
) -> list[Answer]:
    """Send each body from its address, to the gateways in turn."""
    left, answers = enumerate(bodies), list[Answer]()

    async def some() -> None:
        for number, (address, body) in left:
            gateway = gateways[number % len(gateways)]
            options = {"data": body} if isinstance(body, str) else {"json": body}
            headers = {"X-Forwarded-For": address, "Content-Type": "application/json"}
            if path == LEADS:
                headers |= {"Origin": SITE, "Idempotency-Key": uuid.uuid4().hex}
            answers.append(await gateway.send("POST", path, headers, **options))

    await asyncio.gather(*(some() for _ in range(at_once)))
    return answers


def from_each_network(body: Any, number: int, first: int = 0) -> list[tuple[str, Any]]:
    return [(address, body) for address in islice(networks(), first, first + number)]


@pytest.mark.parametrize(
    ("path", "setting"), [(CHAT, "CHAT_BUDGET"), (OPT_IN, "PUBLIC_WRITE_BUDGET")]
)
async def test_a_flood_of_invalid_requests_leaves_the_budget_whole(
    start_gateway: StartGateway, path: str, setting: str
) -> None:
    settings = PROXIED | {setting: "40 per day"}
    gateways = [await start_gateway(**settings) for _ in range(2)]
    before = times_said(gateways, "disconnected")
    for bad in ("no JSON", {"wrong": 1}, {"session_id": "s1"}):
        answers = await send(gateways, path, from_each_network(bad, 300))
        assert statuses(answers).keys() <= {400, 422, 429}, "429: all others are under way"
    found = statuses(await send(gateways, path, from_each_network(GOOD, 100, first=300)))
    (refused,) = await send(gateways[:1], path, [("10.0.2.1", GOOD)])
    left = int(refused.headers["Retry-After"])
    assert 0 <= left - (86400 - int(time.time()) % 86400) <= 60
    name = "chat_budget" if path == CHAT else "write_budget"
    assert refused.headers["RateLimit"] == f'"{name}";r=0;t={left}'
    assert (await gateways[0].call("POST", path, GOOD, **SERVICE)).status == 200
    if times_said(gateways, "disconnected") == before:
        assert found == {200: 40, 429: 60}
    else:  # a slow machine: each counted on its own, as it may
        assert 40 <= found[200] <= 80


async def test_what_no_service_answered_is_given_back_and_what_it_may_have_done_is_not(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(**PROXIED, CHAT_BUDGET="40 per day")
    handle = owner.handle

    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    owner.say(status=503)
    assert statuses(await send([gateway], CHAT, from_each_network(GOOD, 30))) == {503: 30}
    owner.handle = cut
    answers = await send([gateway], CHAT, from_each_network(GOOD, 10, first=30))
    assert statuses(answers) == {502: 10}
    owner.handle = handle
    answers = await send([gateway], CHAT, from_each_network(GOOD, 50, first=40))
    assert statuses(answers) == {200: 30, 429: 20}


@pytest.mark.parametrize("network", ["198.51.100.{}", "2001:db8:1:{}::1"], ids=["/24", "/48"])
async def test_a_network_takes_at_most_a_twentieth_and_so_does_an_address(
    start_gateway: StartGateway, network: str
) -> None:
    gateways = [await start_gateway(**PROXIED, CHAT_BUDGET="100 per day") for _ in range(2)]
    many = [(network.format(number), GOOD) for number in range(60)]
    before = times_said(gateways, "disconnected")
    found = statuses(await send(gateways, CHAT, many))
    assert found[200] == 5 or times_said(gateways, "disconnected") > before
    assert found.keys() == {200, 429}
    one = statuses(await send(gateways[:1], CHAT, [("192.0.2.1", GOOD)] * 10, at_once=1))
    assert one == {200: 5, 429: 5}
    others = statuses(await send(gateways, CHAT, from_each_network(GOOD, 100)))
    assert 80 <= others[200] <= 90


async def test_ten_thousand_addresses_on_two_gateways_get_exactly_the_budget(
    start_gateway: StartGateway,
) -> None:
    settings = PROXIED | {"CHAT_BUDGET": "3000 per day"}
    gateways = [await start_gateway(**settings) for _ in range(2)]
    before = times_said(gateways, "disconnected")
    found = statuses(await send(gateways, CHAT, from_each_network(GOOD, 10_000)))
    exact = times_said(gateways, "disconnected") == before
    assert 3000 <= found[200] <= (3000 if exact else 6000)
    assert found.total() == 10_000


async def test_redis_killed_amid_valid_and_invalid_requests_admits_no_excess(
    start_gateway: StartGateway, own_redis: Redis
) -> None:
    settings = PROXIED | {"CHAT_BUDGET": "100 per day", "REDIS_URL": own_redis.url}
    gateway = await start_gateway(**settings)
    await gateway.redis_is("healthy")

    def mixed(first: int) -> list[tuple[str, Any]]:
        bad = from_each_network({"wrong": 1}, 60, first=first + 60)
        good = from_each_network(GOOD, 60, first=first)
        return [each for pair in zip(good, bad, strict=True) for each in pair]

    answers = await send([gateway], CHAT, mixed(0))
    under_way = asyncio.create_task(send([gateway], CHAT, mixed(120)))
    await asyncio.to_thread(own_redis.kill)
    answers += await under_way
    answers += await send([gateway], CHAT, mixed(240))
    # An invalid one that is under way may be in a valid one's place, and then frees it.
    answers += await send([gateway], CHAT, from_each_network(GOOD, 60, first=400))
    assert statuses(answers)[200] == 100
    await asyncio.to_thread(own_redis.start)
    await gateway.redis_is("healthy")
    assert 200 not in statuses(await send([gateway], CHAT, mixed(500)))


async def test_a_network_over_its_part_still_withdraws_and_others_still_get_their_mails(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(**PROXIED, PUBLIC_WITHDRAWAL_BUDGET="100 per day")
    path = "/api/revoke-consent"
    bad = await send([gateway], path, [(f"198.51.100.{n}", "no JSON") for n in range(60)])
    assert statuses(bad) == {422: 60}
    flood = await send([gateway], path, [(f"198.51.100.{n}", GOOD) for n in range(60)])
    assert statuses(flood) == {200: 60}
    over = ["X-Over-Budget" in each["headers"] for each in owner.of(path)]
    assert over[-60:].count(False) == 5, "consent mails links for these only"
    await send([gateway], path, [("192.0.2.1", GOOD)])
    assert "X-Over-Budget" not in owner.received[-1]["headers"]


async def test_a_visitor_who_would_wait_long_is_led_to_a_form(start_gateway: StartGateway) -> None:
    base = "https://leads.example.pl"
    limits = {"CHAT_BUDGET": "40 per day", "API_RATE_LIMIT_HOUR": "40 per day"}
    gateway = await start_gateway(**PROXIED, **limits, PUBLIC_BASE_URL=base)
    for language, said in (("pl", "nie została wysłana"), ("en", "was not sent")):
        headers = {"X-Forwarded-For": "192.0.2.1", "Accept-Language": language}
        answers = [await gateway.call("POST", CHAT, GOOD, **headers) for _ in range(3)]
        assert answers[-1].status == 429
        form = f"{base}/forms/contact?language={language}"
        assert answers[-1].body["contact"] == form
        assert answers[-1].body["detail"].endswith(form)
        # Without a script, by the same budget.
        page = await gateway.send("POST", "/chat", headers, data={"message": "Dzień dobry"})
        assert (page.status, page.headers["Content-Type"]) == (429, "text/html; charset=utf-8")
        assert int(page.headers["Retry-After"]) > 60
        assert said in page.body
        assert f'<a href="{form}">' in page.body
        assert "<form" not in page.body, "it would send an empty message"
        assert (await gateway.call("GET", form.removeprefix(base))).status == 200
    assert (await gateway.call("POST", CHAT, GOOD, **headers, **SERVICE)).status == 200
    spent = {"X-Forwarded-For": "192.0.2.2", "Accept-Language": "en"}
    for _ in range(41):
        page = await gateway.call("GET", "/unsubscribe", **spent)
    spent |= {"X-Forwarded-For": "192.0.2.3"}
    for _ in range(60):
        refused = await gateway.call("POST", "/api/unsubscribe", GOOD, **spent)
    for each in (page, refused):  # nobody is asked for data who takes a consent back
        assert each.status == 429
        assert "/forms/contact" not in str(each.body)


async def test_in_shadow_mode_a_spent_budget_refuses_and_marks_nothing(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    settings = PROXIED | with_form_budget(tmp_path, 20) | {"RATE_LIMIT_MODE": "shadow"}
    budgets = dict.fromkeys(("CHAT_BUDGET", "PUBLIC_WITHDRAWAL_BUDGET"), "20 per day")
    gateway = await start_gateway(**settings, **budgets)
    for path in (CHAT, "/api/unsubscribe"):
        assert statuses(await send([gateway], path, from_each_network(GOOD, 30))) == {200: 30}
    assert not any("X-Over-Budget" in each["headers"] for each in owner.received)
    forms = await send([gateway], LEADS, from_each_network(form("a@example.com"), 30))
    assert statuses(forms) == {202: 30}
    assert suspicions(owner) == {None: 30}
    assert gateway.log.read_text().count("limits.would_refuse") == 30


def with_form_budget(folder: Path, leads: int) -> dict[str, str]:
    return config(folder, limits={"form": f"{leads} per day"})


def form(email: str, **more: Any) -> dict[str, Any]:
    return {"form": "contact", "language": "en", "fields": {"email": email}} | more


def suspicions(owner: Owner) -> Counter[str | None]:
    return Counter(json.loads(each["body"])["suspicion"] for each in owner.of("/internal/leads"))


async def test_a_form_whose_budget_is_spent_still_takes_leads_and_keeps_them_apart(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    settings = PROXIED | with_form_budget(tmp_path, 40)
    gateway = await start_gateway(**settings)
    invalid = await send([gateway], LEADS, from_each_network(form("nobody"), 200))
    trapped = from_each_network(form("a@example.com", trap="x"), 50, first=200)
    assert statuses(invalid) == {422: 200}
    assert statuses(await send([gateway], LEADS, trapped)) == {202: 50}
    real = from_each_network(form("b@example.com"), 100, first=300)
    assert statuses(await send([gateway], LEADS, real)) == {202: 100}
    assert suspicions(owner) == {"trap": 50, None: 40, "busy": 60}

    # A page without a script is taken, too.
    given = {"form": "contact", "language": "en", "email": "c@example.com"}
    headers = {"Origin": SITE, "X-Forwarded-For": "192.0.2.1"}
    page = await gateway.send("POST", LEADS, headers, data=given)
    assert page.status == 303
    assert suspicions(owner)["busy"] == 61


async def test_what_is_kept_apart_has_a_bound_of_its_own_and_no_network_fills_it(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    gateway = await start_gateway(**PROXIED, **with_form_budget(tmp_path, 1_000_000))
    bots = [(f"198.51.100.{n}", form(f"a{n}@example.com", trap="x")) for n in range(60)]
    assert statuses(await send([gateway], LEADS, bots)) == {202: 15, 429: 45}
    more = from_each_network(form("b@example.com", trap="x"), 400)
    found = statuses(await send([gateway], LEADS, more))
    assert found in ({202: 285, 429: 115}, {202: 300, 429: 100}), "the hour may have ended"
    refused = await send([gateway], LEADS, [("192.0.2.1", form("c@example.com", trap="x"))])
    assert int(refused[0].headers["Retry-After"]) > 0
    assert statuses(await send([gateway], LEADS, [("192.0.2.1", form("d@example.com"))])) == {
        202: 1
    }
    assert suspicions(owner)[None] == 1


async def test_a_form_that_no_one_took_costs_nothing(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    handle = owner.handle

    owner.say(status=503)
    gateway = await start_gateway(**PROXIED, **with_form_budget(tmp_path, 20))
    lost = await send([gateway], LEADS, from_each_network(form("a@example.com"), 50))
    assert statuses(lost) == {503: 50}
    owner.handle, owner.received[:] = handle, []
    taken = await send([gateway], LEADS, from_each_network(form("a@example.com"), 20, first=50))
    assert statuses(taken) == {202: 20}
    assert suspicions(owner) == {None: 20}


async def test_chat_has_a_limit_for_each_address_that_invalid_requests_meet_too(
    start_gateway: StartGateway,
) -> None:
    settings = PROXIED | {"CHAT_RATE_LIMIT": "1000 per minute"}
    usual = await start_gateway(**settings)
    (answer,) = await send([usual], CHAT, [("192.0.2.2", "no JSON")])
    policy = '"chat";q=1000;w=60, "chat_budget-part";q=150;w={}'
    assert answer.headers["RateLimit-Policy"] == policy.format(3600)

    gateway = await start_gateway(**settings, CHAT_BUDGET="3000 per day")
    answers = await send([gateway], CHAT, [("192.0.2.1", "no JSON")] * 160)
    assert answers[0].headers["RateLimit-Policy"] == policy.format(86400)
    assert statuses(answers) == {400: 150, 429: 10}
