"""P8: exact under concurrency and across processes, not dodged, and there without Redis.

Windows of a day, so that no test runs over the end of one.
"""

import asyncio
import base64
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.up.servers import Redis
from libs.domain.signed_links import Tokens
from tests.integration.gateway.conftest import ADMIN, NOBODY, SERVICE, Gateway, Owner, StartGateway
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.proxy import UP, Proxy
from tests.support.service import Answer

pytestmark = pytest.mark.promise("P8")

CHAT = "/api/chatbot/chat"
MESSAGE = {"message": "Dzień dobry", "session_id": "s1"}
TOKEN_KEYS = "k1:" + base64.b64encode(b"k" * 32).decode()
LONGEST_ANSWER = 8.0  # of a shared machine; requests that queue behind a dead Redis take longer


async def flood(count: int, *gateways: Gateway, path: str = CHAT) -> list[Answer]:
    """Send all at once, each claiming another X-Forwarded-For, to the gateways in turn."""
    return list(
        await asyncio.gather(
            *(
                gateways[i % len(gateways)].call(
                    "POST", path, MESSAGE, **{"X-Forwarded-For": f"203.0.113.{i}, 198.51.100.{i}"}
                )
                for i in range(count)
            )
        )
    )


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


async def counted_by_redis(
    ask: Callable[..., Awaitable[list[Answer]]], *gateways: Gateway
) -> Counter[int]:
    """Ask from an address that nobody has counted yet; again, if a process counted on its own.

    They do so, rightly, when this machine holds Redis up for longer than they wait for it.
    """
    for number in range(2, 6):
        await until(
            lambda: times_said(gateways, "disconnected") == times_said(gateways, "connected")
        )
        before = times_said(gateways, "disconnected")
        address = aiohttp.TCPConnector(limit=0, local_addr=(f"127.0.0.{number}", 0))
        async with aiohttp.ClientSession(connector=address) as session:
            answers = await ask(*(gateway.by(session) for gateway in gateways))
        if times_said(gateways, "disconnected") == before:
            break
    return statuses(answers)


def times_said(gateways: Sequence[Gateway], what: str) -> int:
    return sum(gateway.log.read_text().count(f"redis_pipeline.{what}") for gateway in gateways)


@pytest.mark.quick
@pytest.mark.parametrize("processes", [1, 2])
async def test_of_200_at_once_with_forged_headers_exactly_30_pass(
    start_gateway: StartGateway, processes: int
) -> None:
    gateways = [await start_gateway(CHAT_RATE_LIMIT="30 per day") for _ in range(processes)]
    assert await counted_by_redis(partial(flood, 200), *gateways) == {200: 30, 429: 170}


async def test_a_refusal_has_retry_after(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(CHAT_RATE_LIMIT="1 per day")
    await gateway.call("POST", CHAT, MESSAGE)
    refused = await gateway.call("POST", CHAT, MESSAGE, **{"Accept-Language": "pl-PL,pl;q=0.9"})
    left = int(refused.headers["Retry-After"])
    assert refused.status == 429
    assert 0 <= left - (86400 - int(time.time()) % 86400) <= 60
    assert refused.headers["RateLimit-Policy"].startswith('"chat";q=1;w=86400, ')
    assert refused.headers["RateLimit"] == f'"chat";r=0;t={left}'
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    assert refused.body["detail"].startswith("Zbyt wiele")


async def test_varying_addresses_in_a_path_share_one_limit(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(API_RATE_LIMIT_MINUTE="20 per day")
    answers = await asyncio.gather(
        *(gateway.call("GET", f"/api/unsubscribe/status/a{i}@example.com") for i in range(50))
    )
    assert statuses(answers) == {200: 20, 429: 30}


async def test_the_tighter_window_applies_and_both_are_shown(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        API_RATE_LIMIT_MINUTE="9 per day", API_RATE_LIMIT_HOUR="3 per 12 hours"
    )
    answers = [await gateway.call("GET", "/nowhere") for _ in range(4)]
    assert [answer.status for answer in answers] == [404, 404, 404, 429]
    assert answers[3].headers["RateLimit-Policy"] == '"minute";q=9;w=86400, "hour";q=3;w=43200'
    assert answers[3].headers["RateLimit"].startswith('"hour";r=0;')


async def test_chat_counts_only_against_its_own_limit(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(CHAT_RATE_LIMIT="3 per day", API_RATE_LIMIT_MINUTE="1 per day")
    assert statuses(await flood(4, gateway)) == {200: 3, 429: 1}


async def test_a_valid_key_has_a_limit_of_its_own_and_a_wrong_one_has_not(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(CHAT_RATE_LIMIT="1 per day", SERVICE_RATE_LIMIT="3 per day")
    with_key = [await gateway.call("POST", CHAT, MESSAGE, **SERVICE) for _ in range(4)]
    wrong = [await gateway.call("POST", CHAT, MESSAGE, **{"X-API-KEY": "x"}) for _ in range(2)]
    assert [answer.status for answer in with_key] == [200, 200, 200, 429]
    assert [answer.status for answer in wrong] == [200, 429]


async def test_mailed_links_from_one_address_are_not_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(API_RATE_LIMIT_MINUTE="2 per day", TOKEN_KEYS=TOKEN_KEYS)
    tokens = Tokens(TOKEN_KEYS)

    async def click(token: str) -> int:
        answer = await gateway.send(
            "POST", f"/unsubscribe?token={token}", data={"List-Unsubscribe": "One-Click"}
        )
        return answer.status

    def link(number: int) -> str:
        now = datetime.now(UTC)
        return tokens.sign(f"a{number}@example.com", "marketing", "unsubscribe", now)

    assert {await click(link(number)) for number in range(6)} == {200}
    assert [await click("forged") for _ in range(3)] == [200, 200, 429]


async def test_shadow_mode_refuses_no_request_and_logs_those_it_would(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(CHAT_RATE_LIMIT="2 per day", RATE_LIMIT_MODE="shadow")
    assert statuses(await flood(5, gateway)) == {200: 5}
    assert gateway.log.read_text().count("limits.would_refuse") == 3


async def test_a_malformed_limit_stops_the_start_and_is_named(start_gateway: StartGateway) -> None:
    with pytest.raises(RuntimeError, match=r"CHAT_RATE_LIMIT.*30 per fortnight"):
        await start_gateway(CHAT_RATE_LIMIT="30 per fortnight")


async def test_redis_killed_under_load_admits_no_excess_and_fails_no_request(
    start_gateway: StartGateway, own_redis: Redis
) -> None:
    gateway = await start_gateway(CHAT_RATE_LIMIT="30 per day", REDIS_URL=own_redis.url)
    await gateway.redis_is("healthy")
    first = await flood(20, gateway)
    under_way = asyncio.create_task(flood(100, gateway))
    await asyncio.to_thread(own_redis.kill)
    middle = await under_way
    after = await flood(50, gateway)
    admitted = statuses(first + middle + after)
    assert admitted == {200: 30, 429: 140}
    assert max(answer.seconds for answer in middle + after) < LONGEST_ANSWER
    await asyncio.to_thread(own_redis.start)
    await gateway.redis_is("healthy")
    assert statuses(await flood(50, gateway)) == {429: 50}


async def test_a_frozen_redis_delays_requests_only_briefly(
    start_gateway: StartGateway, own_redis: Redis
) -> None:
    pid = own_redis.pid
    assert pid is not None
    try:
        gateway = await start_gateway(CHAT_RATE_LIMIT="100 per day", REDIS_URL=own_redis.url)
        await gateway.redis_is("healthy")
        os.kill(pid, signal.SIGSTOP)
        answers = await flood(130, gateway)
        assert statuses(answers) == {200: 100, 429: 30}
        assert max(answer.seconds for answer in answers) < LONGEST_ANSWER
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_redis_that_lost_its_memory_learns_what_was_admitted(
    start_gateway: StartGateway, own_redis: Redis
) -> None:
    settings = {"CHAT_RATE_LIMIT": "30 per day", "REDIS_URL": own_redis.url}
    one, other = await start_gateway(**settings), await start_gateway(**settings)
    await one.redis_is("healthy")
    await other.redis_is("healthy")
    assert statuses(await flood(25, one)) == {200: 25}
    own_redis.command("FLUSHALL")
    assert statuses(await flood(1, one)) == {200: 1}
    assert statuses(await flood(10, other)) == {200: 4, 429: 6}


@pytest.mark.quick
async def test_a_gateway_that_starts_without_redis_limits_on_its_own(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(CHAT_RATE_LIMIT="5 per day", REDIS_URL="redis://127.0.0.1:1")
    assert statuses(await flood(20, gateway)) == {200: 5, 429: 15}


async def limits_of(gateway: Gateway) -> dict[str, str]:
    return dict((await gateway.call("GET", "/api/ratelimits", **ADMIN)).body)


async def test_a_changed_limit_is_in_force_on_all_gateways(start_gateway: StartGateway) -> None:
    one, other = await start_gateway(), await start_gateway(CHAT_RATE_LIMIT="7 per minute")
    changed = await one.call("PUT", "/api/ratelimits", {"chat": "3 per day"}, **ADMIN)
    assert changed.status == 200
    assert changed.body["chat"] == "3 per day"

    await eventually(lambda: limits_of(other), so=lambda found: found["chat"] == "3 per day")
    assert statuses(await flood(6, one, other)) == {200: 3, 429: 3}
    taken_back = await other.call("PUT", "/api/ratelimits", {"chat": None}, **ADMIN)
    assert taken_back.body["chat"] == "7 per minute"
    assert taken_back.body["sources"]["chat"] == "env"


async def test_a_changed_limit_survives_restarts_and_a_redis_that_lost_it(
    start_gateway: StartGateway, own_redis: Redis, tmp_path: Path
) -> None:
    settings = {
        "REDIS_URL": own_redis.url,
        "RATE_LIMIT_STATE_FILE": str(tmp_path / "state" / "limits.json"),
    }
    gateway = await start_gateway(**settings)
    await gateway.redis_is("healthy")
    await gateway.call("PUT", "/api/ratelimits", {"hour": "9 per hour"}, **ADMIN)
    await asyncio.to_thread(own_redis.kill)
    await gateway.stop()
    again = await start_gateway(**settings)
    assert (await limits_of(again))["hour"] == "9 per hour"
    await asyncio.to_thread(own_redis.start)
    own_redis.command("FLUSHALL")
    await again.redis_is("healthy")
    other = await start_gateway(REDIS_URL=own_redis.url)

    await eventually(lambda: limits_of(other), so=lambda found: found["hour"] == "9 per hour")


async def test_a_malformed_change_changes_nothing(gateway: Gateway) -> None:
    before = await limits_of(gateway)
    for body in (
        {"chat": "many"},
        {"chat": "0 per minute"},
        {"chat": "1 per minute; 1 per hour"},
        {"service": "1 per minute"},
        {"chat": 3},
    ):
        assert (await gateway.call("PUT", "/api/ratelimits", body, **ADMIN)).status == 422, body
    assert await limits_of(gateway) == before


async def test_a_change_without_redis_is_503(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(REDIS_URL="redis://127.0.0.1:1", CONSENT_URL=NOBODY)
    answer = await gateway.call("PUT", "/api/ratelimits", {"chat": "9 per minute"}, **ADMIN)
    assert answer.status == 503
    assert "nothing was changed" in answer.body["detail"]
    assert answer.headers["Retry-After"]


async def test_a_change_without_a_redis_reply_is_reported_as_unknown(
    start_gateway: StartGateway, redis_server: Redis
) -> None:
    async with Proxy(redis_server.port) as way:
        url = redis_server.url.replace(f":{redis_server.port}", f":{way.port}")
        gateway = await start_gateway(REDIS_URL=url)
        await gateway.redis_is("healthy")
        cut = way.cut_after(UP, b"9 per minute\r\n")  # the whole of it, and before its answer

        async def sent() -> Any:
            change = {"chat": "9 per minute"}
            answer = await gateway.call("PUT", "/api/ratelimits", change, **ADMIN)
            return answer if cut.is_set() else None  # a slow machine: it did not come so far

        answer = await eventually(sent)
        assert answer.status == 503
        assert "nothing was changed" not in answer.body["detail"]
        assert answer.headers["Retry-After"]

        await eventually(
            lambda: limits_of(gateway), so=lambda found: found["chat"] == "9 per minute"
        )


async def test_limits_for_hours_of_the_week_show_the_one_in_force(
    start_gateway: StartGateway,
) -> None:
    always = "3 per day; 2 per day mon-sun 00:00-12:00; 2 per day mon-sun 12:00-00:00"
    gateway = await start_gateway(CHAT_RATE_LIMIT=always, SERVICE_WAIT_SECONDS="0.5")
    shown = (await gateway.call("GET", "/api/ratelimits", **ADMIN)).body
    assert (shown["chat"], shown["now"]["chat"]) == (always, "2 per day")
    assert shown["service_wait"] == {"seconds": 0.5, "most": 100}
    assert statuses(await flood(5, gateway)) == {200: 2, 429: 3}
    changed = await gateway.call("PUT", "/api/ratelimits", {"chat": "4 per day"}, **ADMIN)
    assert changed.body["now"]["chat"] == "4 per day"


async def test_a_key_holder_over_the_limit_waits_for_the_next_window_and_not_beside_too_many(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(
        SERVICE_RATE_LIMIT="3 per 2 seconds", SERVICE_WAIT_MOST="2", CHAT_RATE_LIMIT="3 per day"
    )
    answers = await asyncio.gather(
        *(gateway.call("POST", CHAT, MESSAGE, **SERVICE) for _ in range(10))
    )
    found = statuses(answers)
    # Over the end of a window there may be more at once, and never a wait beyond the next one.
    assert found[200] >= 5
    at_once = [answer for answer in answers if answer.status == 429 and answer.seconds < 0.3]
    assert len(at_once) >= 2, "more wait than may"
    assert max(answer.seconds for answer in answers) < 2 + LONGEST_ANSWER
    refused = await flood(4, gateway)
    assert statuses(refused) == {200: 3, 429: 1}
    assert max(answer.seconds for answer in refused) < LONGEST_ANSWER


async def test_a_site_with_many_ipv6_networks_has_a_limit_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(CHAT_RATE_LIMIT="2 per day", TRUSTED_PROXIES="127.0.0.0/8")

    async def ask(network: int, site: str = "2001:db8:1", host: int = 1) -> int:
        forwarded = {"X-Forwarded-For": f"{site}:{network:x}::{host}"}
        return (await gateway.call("POST", CHAT, MESSAGE, **forwarded)).status

    assert Counter([await ask(n) for n in range(40)]) == {200: 32, 429: 8}
    other = "2001:db8:2"
    assert [await ask(1, other, host) for host in (1, 2, 3)] == [200, 200, 429]  # one customer


async def botnet(path: str, *gateways: Gateway, network: str = "198.51") -> list[Answer]:
    """Call once from each of 200 networks."""
    return list(
        await asyncio.gather(
            *(
                gateways[i % len(gateways)].call(
                    "POST", path, MESSAGE, **{"X-Forwarded-For": f"{network}.{i}.1"}
                )
                for i in range(200)
            )
        )
    )


@pytest.mark.parametrize("path", ["/api/unsubscribe", "/api/revoke-consent"])
async def test_withdrawals_have_a_budget_of_their_own_and_are_never_refused_for_it(
    start_gateway: StartGateway, own_ports: list[int], owner: Owner, path: str
) -> None:
    gateway = await start_gateway(
        TRUSTED_PROXIES="127.0.0.0/8",
        PUBLIC_WRITE_BUDGET="50 per day",
        PUBLIC_WITHDRAWAL_BUDGET="50 per day",
        METRICS_PORT=str(own_ports[3]),
    )
    assert statuses(await botnet(path, gateway)) == {200: 200}
    over = ["X-Over-Budget" in each["headers"] for each in owner.received]
    assert over.count(True) == 150  # consent mails nothing for these
    opt_ins = statuses(await botnet("/api/opt-in", gateway, network="203.0"))
    assert opt_ins.keys() == {200, 429}  # withdrawals have used up nothing of theirs
    assert 50 <= opt_ins[200] <= 100
    assert statuses(await botnet(path, gateway, network="192.0")) == {200: 200}
    async with gateway.session.get(f"http://{HOST}:{own_ports[3]}/metrics") as answer:
        counted = await answer.text()
    for used, count in {"low": 40, "most": 10, "all": 350}.items():
        of = f'{{budget="withdrawal_budget",used="{used}"}}'
        assert f"gateway_budget_requests_total{of} {count}.0" in counted
