"""Each call with the admin key is recorded: before it, and after."""

import asyncio
import base64
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from libs.common.signed_links import Tokens
from services.gateway import scopes
from services.gateway.http import FORWARDED
from tests.integration.gateway.conftest import (
    ADMIN,
    INTERNAL_KEYS,
    NOBODY,
    ROOT,
    SERVICE,
    Gateway,
    Owner,
    StartGateway,
)
from tests.support.console import INTERNAL_KEY
from tests.support.eventually import eventually

OPERATOR_KEYS = "o1:" + base64.b64encode(b"o" * 32).decode()
ACT: dict[str, Any] = json.loads((ROOT / "tests/contracts/action.record.json").read_text())
GOLDEN: dict[str, Any] = json.loads((ROOT / "tests/contracts/call.record.json").read_text())
OWN = [("PUT", "/api/ratelimits"), ("POST", "/api/cache/cleanup")]
SHOWN = {
    "/api/ratelimits", "/api/dlq/stats", "/api/breakers", "/api/ledger/check", "/api/oncall",
    "/api/silences", "/api/consent/erasures",
}  # fmt: skip
"""What a page of the console asks for each time: no person is in it."""
RECORDED = "/api/dlq/failed"
ANNA = "anna.kowalska@example.pl"


class Consent:
    """Stands for all owners, takes what is recorded, and notes the order."""

    def __init__(self, owner: Owner) -> None:
        self.seen: list[str] = []
        self.records: list[dict[str, Any]] = []
        self.acts: list[dict[str, Any]] = []
        owner.handle = self._handle

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/internal/actions" and request.headers["X-Caller"] == "service":
            self.acts.append(await request.json())  # the console takes acts
            return web.json_response({"recorded": True}, status=202)
        if request.path == "/internal/actions":
            record = await request.json()
            self.records.append(record)
            self.seen.append(record["phase"])
            return web.json_response({"recorded": True}, status=201)
        if request.path != "/health/deep":
            self.seen.append("the call")
        return web.json_response({"status": "healthy"})


async def test_a_call_is_recorded_before_it_and_after_it(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway()
    consent = Consent(owner)
    headers = {**ADMIN, "X-Operator": "ewa", "X-Request-ID": "request-of-ewa"}
    answer = await gateway.call("POST", "/api/consent/erase", {"email": ANNA}, **headers)
    assert answer.status == 200
    assert consent.seen == ["intended", "the call", "done"]
    intended, done = consent.records
    assert intended.keys() == done.keys() == GOLDEN.keys()
    assert re.fullmatch("[0-9a-f]{8}", done["key_id"])
    said = {
        "operator": "ewa",
        "method": "POST",
        "route": "/api/consent/erase",
        "details": {},
        "subject": ANNA,
        "client_address": "127.0.0.1",
        "request_id": "request-of-ewa",
    }
    assert {name: done[name] for name in said} == said
    assert (intended["status"], done["status"]) == (None, 200)
    assert intended["id"] == done["id"]


async def test_every_admin_route_is_recorded_by_its_template_but_for_looks_at_the_system(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(CONSOLE_URL=owner.url, CONSOLE_INTERNAL_KEY=INTERNAL_KEY)
    consent = Consent(owner)
    admin_only = scopes.ADMIN - scopes.SERVICE
    admin = [(each.method, each.path) for each in FORWARDED if each.requires.scope in admin_only]
    looks = {("GET", path) for path in SHOWN}
    for method, path in [each for each in [*admin, *OWN] if each not in looks]:
        consent.records.clear()
        called = path.replace("{email}", ANNA).replace("{target}", "slack").replace("{id}", "1")
        answer = await gateway.call(method, called, {} if method != "GET" else None, **ADMIN)
        recorded = [(each["phase"], each["method"], each["route"]) for each in consent.records]
        assert recorded == [("intended", method, path), ("done", method, path)]
        assert consent.records[1]["status"] == answer.status
    consent.records.clear()
    await gateway.call("GET", "/api/health/deep", **ADMIN)
    for path in SHOWN:
        assert (await gateway.call("GET", path, **ADMIN)).status == 200
    await gateway.call("POST", "/api/alerts", {}, **SERVICE)
    assert consent.records == []
    await gateway.call("GET", f"/api/unsubscribe/status/{ANNA}", **ADMIN)
    assert [each["subject"] for each in consent.records] == [ANNA, ANNA]


async def test_filters_and_ids_are_recorded_and_no_address_in_them(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway()
    consent = Consent(owner)
    body = {"ids": ["1", ANNA], "target": "slack", "status": "failed", "reason": f"of {ANNA}"}
    await gateway.call("POST", f"/api/dlq/retry?cursor=7&since={ANNA}", body, **ADMIN)
    await gateway.call("POST", "/api/dlq/cleanup", {"older_than_hours": 24}, **ADMIN)
    silence = {"event_type": "slack_alert", "ends": "2026-12-01T08:00:00Z", "why": f"of {ANNA}"}
    await gateway.call("POST", "/api/silences", silence, **ADMIN)
    await gateway.send("POST", "/api/dlq/discard", ADMIN, data=b"\xff{not json")
    details = [each["details"] for each in consent.records if each["phase"] == "intended"]
    assert details == [
        {
            "ids": ["1", "(withheld)"],
            "target": "slack",
            "status": "failed",
            "since": "(withheld)",
            "cursor": "7",
        },
        {"older_than_hours": 24},
        {"event_type": "slack_alert", "ends": "2026-12-01T08:00:00Z"},
        {},
    ]


async def test_a_call_without_an_upstream_answer_is_recorded_with_the_caller_s_status(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(ALERTS_URL=NOBODY)
    consent = Consent(owner)
    answer = await gateway.call("GET", RECORDED, **ADMIN)
    assert answer.status == consent.records[1]["status"] == 503


async def test_an_admin_call_that_cannot_be_reported_still_works_and_is_counted(
    start_gateway: StartGateway, own_ports: list[int]
) -> None:
    gateway = await start_gateway(CONSENT_URL=NOBODY, METRICS_PORT=str(own_ports[3]))
    answer = await gateway.call("GET", RECORDED, **ADMIN, **{"X-Operator": "ewa"})
    assert answer.status == 200
    lines = said_of(gateway, "admin_call.unrecorded")
    assert [(each["phase"], each["route"]) for each in lines] == [
        ("intended", RECORDED),
        ("done", RECORDED),
    ]
    url = f"http://127.0.0.1:{own_ports[3]}/metrics"
    async with gateway.session.get(url) as metrics:
        assert 'gateway_admin_calls_unrecorded_total{phase="intended"} 1.0' in await metrics.text()


def said_of(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if event in line]
    return [line for line in lines if line.get("event") == event]


async def test_a_refused_key_is_logged_without_the_key_and_nothing_is_recorded(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway()
    consent = Consent(owner)
    guess = {"X-ADMIN-API-KEY": "guessed-key-number-1"}
    assert (await gateway.call("GET", "/api/breakers", **guess)).status == 401
    await gateway.call("GET", f"/api/unsubscribe/status/{ANNA}", **guess)  # asks all the same

    async def logged() -> bool:
        return len(said_of(gateway, "key.rejected")) == 2

    await eventually(logged)
    assert said_of(gateway, "key.rejected")[0]["network"] == "127.0.0.0/24"
    assert "guessed-key" not in gateway.log.read_text()
    assert consent.records == []


async def test_while_keys_are_replaced_both_work_and_are_told_apart(
    start_gateway: StartGateway, owner: Owner
) -> None:
    new, old = "the-new-admin-key-1", "the-old-admin-key-1"
    gateway = await start_gateway(ADMIN_API_KEY=new, ADMIN_API_KEY_PREVIOUS=old)
    consent = Consent(owner)
    for key in (new, old):
        answer = await gateway.call("GET", RECORDED, **{"X-ADMIN-API-KEY": key})
        assert answer.status == 200
    assert len({each["key_id"] for each in consent.records}) == 2
    assert new not in str(consent.records)


async def test_the_gateway_s_own_acts_are_recorded_before_they_are_done(
    start_gateway: StartGateway, owner: Owner, redis_url: str
) -> None:
    gateway = await start_gateway(CONSOLE_URL=owner.url, CONSOLE_INTERNAL_KEY=INTERNAL_KEY)
    consent = Consent(owner)
    change = {"chat": "7 per minute", "hour": None}
    headers = {**ADMIN, "X-Operator": "ewa", "X-Request-ID": "request-of-ewa"}
    assert (await gateway.call("PUT", "/api/ratelimits", change, **headers)).status == 200
    assert (await gateway.call("PUT", "/api/ratelimits", {"chat": "x"}, **headers)).status == 422
    assert (await gateway.call("POST", "/api/cache/cleanup", **headers)).status == 200
    limits, cache = consent.acts
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


async def test_an_act_that_cannot_be_recorded_is_not_done_but_with_the_admin_key(
    start_gateway: StartGateway, own_ports: list[int]
) -> None:
    gateway = await start_gateway(
        CONSOLE_URL=NOBODY,
        CONSOLE_INTERNAL_KEY=INTERNAL_KEY,
        OPERATOR_KEYS=OPERATOR_KEYS,
        METRICS_PORT=str(own_ports[3]),
    )
    token = Tokens(OPERATOR_KEYS).sign("7 Ewa Lis", "ops", "operator", datetime.now(UTC))
    ewa = {"X-Operator-Token": token}
    refused = await gateway.call("PUT", "/api/ratelimits", {"chat": "7 per minute"}, **ewa)
    assert (refused.status, "nothing was changed" in str(refused.body)) == (503, True)
    assert (await gateway.call("POST", "/api/cache/cleanup", **ewa)).status == 503
    shown = await gateway.call("GET", "/api/ratelimits", **ADMIN)
    assert shown.body["sources"]["chat"] != "override"
    done = await gateway.call("PUT", "/api/ratelimits", {"chat": "7 per minute"}, **ADMIN)
    assert (done.status, done.body["sources"]["chat"]) == (200, "override")
    (line,) = said_of(gateway, "action.unrecorded")
    assert (line["action"], line["ref"]) == ("limits.change", "chat=7 per minute")
    url = f"http://127.0.0.1:{own_ports[3]}/metrics"
    async with gateway.session.get(url) as metrics:
        assert 'gateway_admin_calls_unrecorded_total{phase="act"} 1.0' in await metrics.text()


async def test_what_staff_do_and_see_is_not_recorded_a_second_time(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway(OPERATOR_KEYS=OPERATOR_KEYS)
    consent = Consent(owner)
    roles = "ops,privacy,sales"
    token = Tokens(OPERATOR_KEYS).sign("7 Ewa Lis", roles, "operator", datetime.now(UTC))
    for method, path in (
        ("GET", RECORDED),
        ("POST", "/api/consent/erase"),
        ("POST", "/api/leads/1/state"),
    ):
        body: Any = {} if method == "POST" else None
        assert (await gateway.call(method, path, body, **{"X-Operator-Token": token})).status == 200
    assert (consent.records, consent.seen) == ([], ["the call"] * 3)


@pytest.mark.parametrize("key", ["x", "fifteen-letters", "aaaaaaaabbbbbbbb"])
async def test_a_key_that_is_easily_guessed_stops_the_start(tmp_path: Path, key: str) -> None:
    environment = {
        "HTTP_PORT": "0",
        "METRICS_PORT": "0",
        "ADMIN_API_KEY": key,
        "REDIS_URL": "redis://127.0.0.1:1",
        "AMQP_URL": "amqp://127.0.0.1:1",
        **dict.fromkeys(INTERNAL_KEYS, "internal-key-of-tests"),
        **dict.fromkeys(("FOLLOWUPS_URL", "CONSENT_URL", "ALERTS_URL"), NOBODY),
        "ALERTS_CONFIG": str(ROOT / "config.example/alerts.toml"),
        "RATE_LIMIT_STATE_FILE": str(tmp_path / "limits.json"),
    }
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "services.gateway"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "ADMIN_API_KEY" in ended.stderr
    assert "easily guessed" in ended.stderr
    assert key == "x" or key not in ended.stderr
