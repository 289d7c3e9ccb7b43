"""What the gateway does itself is recorded before it is done; keys of .env are told apart."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from libs.domain.scopes import operator_action
from libs.domain.signed_links import Tokens
from tests.integration.gateway.conftest import ADMIN, NOBODY, ROOT, Gateway, Owner, StartGateway
from tests.support.console import INTERNAL_KEY
from tests.support.consumers import until

pytestmark = pytest.mark.promise("P12")

OPERATOR_KEYS = "o1:" + base64.b64encode(b"o" * 32).decode()
ACT: dict[str, Any] = json.loads((ROOT / "tests/contracts/action.record.json").read_text())
ANNA = "anna.kowalska@example.pl"


def acts(owner: Owner) -> list[dict[str, Any]]:
    return [json.loads(each["body"]) for each in owner.of("/internal/actions")]


def said_of(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if event in line]
    return [line for line in lines if line.get("event") == event]


async def test_a_refused_key_is_logged_without_the_key_and_nothing_is_recorded(
    gateway: Gateway, owner: Owner
) -> None:
    owner.say({"recorded": True}, 202)
    guess = {"X-ADMIN-API-KEY": "guessed-key-number-1"}
    assert (await gateway.call("GET", "/api/breakers", **guess)).status == 401
    await gateway.call("GET", f"/api/unsubscribe/status/{ANNA}", **guess)  # asks all the same
    await until(lambda: len(said_of(gateway, "key.rejected")) == 2)
    assert said_of(gateway, "key.rejected")[0]["network"] == "127.0.0.0/24"
    assert "guessed-key" not in gateway.log.read_text()
    assert acts(owner) == []


async def test_while_keys_are_replaced_both_work_and_are_told_apart(
    start_gateway: StartGateway, owner: Owner
) -> None:
    new, old = "the-new-admin-key-1", "the-old-admin-key-1"
    gateway = await start_gateway(
        ADMIN_API_KEY=new,
        ADMIN_API_KEY_PREVIOUS=old,
        CONSOLE_URL=owner.url,
        CONSOLE_INTERNAL_KEY=INTERNAL_KEY,
    )
    owner.say({"recorded": True}, 202)
    for key in (new, old):
        forged = {"X-ADMIN-API-KEY": key, "X-Caller-Key": "SERVICE_API_KEY"}
        assert (await gateway.call("POST", "/api/cache/cleanup", **forged)).status == 200
    used = [act["actor_id"] for act in acts(owner)]
    assert used == ["ADMIN_API_KEY", "ADMIN_API_KEY_PREVIOUS"]
    assert new not in str(acts(owner))


@pytest.mark.quick
async def test_the_gateway_s_own_acts_are_recorded_before_they_are_done(
    start_gateway: StartGateway, owner: Owner, redis_url: str
) -> None:
    gateway = await start_gateway(CONSOLE_URL=owner.url, CONSOLE_INTERNAL_KEY=INTERNAL_KEY)
    owner.say({"recorded": True}, 202)
    change = {"chat": "7 per minute", "hour": None}
    headers = {**ADMIN, "X-Operator": "ewa", "X-Request-ID": "request-of-ewa"}
    assert (await gateway.call("PUT", "/api/ratelimits", change, **headers)).status == 200
    assert (await gateway.call("PUT", "/api/ratelimits", {"chat": "x"}, **headers)).status == 422
    assert (await gateway.call("POST", "/api/cache/cleanup", **headers)).status == 200
    limits, cache = acts(owner)
    assert limits.keys() == ACT.keys()
    said = {
        "actor_kind": "env",
        "actor_id": "ADMIN_API_KEY",
        "actor_name": "ewa",
        "action": "limits.change",
        "object_ref": "chat=7 per minute hour=configured",
        "outcome": "intended",
        "request_id": "request-of-ewa",
    }
    assert {name: limits[name] for name in said} == said
    assert (cache["action"], cache["id"] != limits["id"]) == ("cache.clean", True)


@pytest.mark.quick
async def test_an_act_that_cannot_be_recorded_is_not_done_but_with_the_admin_key(
    start_gateway: StartGateway, own_ports: list[int]
) -> None:
    gateway = await start_gateway(
        CONSOLE_URL=NOBODY,
        CONSOLE_INTERNAL_KEY=INTERNAL_KEY,
        OPERATOR_KEYS=OPERATOR_KEYS,
        METRICS_PORT=str(own_ports[3]),
    )

    def ewa(method: str, path: str) -> dict[str, str]:
        action, now = operator_action(method, path), datetime.now(UTC)
        return {"X-Operator-Token": Tokens(OPERATOR_KEYS).sign("7 Ewa Lis", "ops", action, now)}

    path, limits = "/api/ratelimits", {"chat": "7 per minute"}
    refused = await gateway.call("PUT", path, limits, **ewa("PUT", path))
    assert (refused.status, "nothing was changed" in str(refused.body)) == (503, True)
    cleanup = "/api/cache/cleanup"
    assert (await gateway.call("POST", cleanup, **ewa("POST", cleanup))).status == 503
    shown = await gateway.call("GET", "/api/ratelimits", **ADMIN)
    assert shown.body["sources"]["chat"] != "override"
    done = await gateway.call("PUT", "/api/ratelimits", {"chat": "7 per minute"}, **ADMIN)
    assert (done.status, done.body["sources"]["chat"]) == (200, "override")
    (line,) = said_of(gateway, "action.unrecorded")
    assert (line["action"], line["ref"]) == ("limits.change", "chat=7 per minute")
    url = f"http://127.0.0.1:{own_ports[3]}/metrics"
    async with gateway.session.get(url) as metrics:
        assert "gateway_acts_unrecorded_total 1.0" in await metrics.text()


@pytest.mark.parametrize("key", ["x", "fifteen-letters", "aaaaaaaabbbbbbbb"])
async def test_a_key_that_is_easily_guessed_stops_the_start(
    start_gateway: StartGateway, key: str
) -> None:
    with pytest.raises(RuntimeError, match="ADMIN_API_KEY: easily guessed") as stopped:
        await start_gateway(ADMIN_API_KEY=key)
    assert key == "x" or key not in str(stopped.value)
