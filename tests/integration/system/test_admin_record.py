"""What admins and staff do stands in the records: each act once, and none without its record."""

import asyncio
import tomllib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import WholeSystem
from tests.integration.console.test_work import new_lead
from tests.support.eventually import eventually
from tests.support.forms import submit
from tests.support.shipped import EXAMPLE
from tests.support.stack import Stack, quick_alerts_config
from tests.support.staff import SILENCEABLE
from tests.support.system import fresh_address

OF_THE_GATEWAY = {"limits.change", "cache.clean"}
OWNERS = ("alerts", "followups", "consent")
# As if the owner were killed before its commit; and after it, before the relay comes to the row.
TRIGGER = """
CREATE OR REPLACE FUNCTION {owner}.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.type = 'action.record' THEN {does}; END IF;
    RETURN NEW;
END $$;
DROP TRIGGER IF EXISTS meddle ON {owner}.outbox;
CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON {owner}.outbox
    FOR EACH ROW EXECUTE FUNCTION {owner}.meddle();
"""
# As if the relay were killed between the broker's confirm and its own commit: all come twice.
RELEASED_TWICE = """
DROP TRIGGER meddle ON {owner}.outbox;
UPDATE {owner}.outbox SET due_at = now();
INSERT INTO {owner}.outbox (message_id, exchange, routing_key, type, body, headers)
    SELECT message_id, exchange, routing_key, type, body, headers FROM {owner}.outbox
    WHERE type = 'action.record';
"""
ACTS = "SELECT * FROM console.staff_action WHERE request_id = ANY(%s)"
Call = tuple[str, str, Any, str]
"""Method, path, body and key."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, whole_system: WholeSystem) -> Iterator[Stack]:
    shipped = tomllib.loads((EXAMPLE / "alerts.toml").read_text(encoding="utf-8"))["answers"]
    chain = [{"to": "email", "person": "ewa", "wait": "1h"}]
    other = {"asks": ["sms"], "within": "1h", "hours": "always", "chain": chain}
    folder = tmp_path_factory.mktemp("config")
    config = quick_alerts_config(folder, answers=shipped | {SILENCEABLE: other})
    with whole_system({"ALERTS_CONFIG": str(config)}) as running:
        yield running


async def test_admin_calls_are_recorded_over_rabbitmq_with_operator_and_outcome(
    stack: Stack,
) -> None:
    address, operator = fresh_address(), "ewa of the test"
    headers = {"X-Operator": operator}
    path = f"/api/consent/audit/{address}"
    assert (await stack.http("GET", path, key="admin", headers=headers)).status == 200
    wanted = "SELECT phase, route, status FROM consent.admin_action WHERE operator = %s ORDER BY at"

    async def recorded() -> bool:
        return len(await asyncio.to_thread(stack.query, wanted, operator)) == 2

    await eventually(recorded, 30)
    rows = await asyncio.to_thread(stack.query, wanted, operator)
    route = "/api/consent/audit/{email}"
    assert [tuple(row) for row in rows] == [("intended", route, None), ("done", route, 200)]
    assert "admin_call.unrecorded" not in stack.log("gateway")


async def in_doubt(stack: Stack) -> str:
    address = fresh_address()
    await stack.opt_in(address)
    await stack.sandbox.behave("email", close=True)
    await stack.follow_up(address)

    async def there() -> str | None:
        rows = (await stack.http("GET", "/api/dlq/in-doubt", key="admin")).body["items"]
        return rows[0]["id"] if rows else None

    found = await eventually(there, 30)
    await stack.sandbox.behave("email", status=200)
    return str(found)


async def failed(stack: Stack) -> str:
    id_ = await stack.alert("x", target="sms")

    async def ended() -> bool:
        return bool((await stack.state(id_)).get("state") == "failed")

    await eventually(ended, 30)
    return id_


async def suspected(stack: Stack) -> str:
    email = fresh_address()
    await submit(stack, {"email": email}, trap="x")

    async def apart() -> str | None:
        found = await stack.http("GET", "/api/leads/suspected", key="service")
        return next((one["id"] for one in found.body["items"] if email in str(one)), None)

    return str(await eventually(apart, 30))


async def follow_up(stack: Stack) -> dict[str, Any]:
    made = await stack.follow_up(fresh_address(), delay_seconds=86_400)
    return dict(made["items"][0])


async def calls(stack: Stack, reason: str) -> tuple[dict[str, Call], set[str]]:
    """Return a call for each act, by its name; and the addresses in what they act on."""
    await stack.sandbox.behave("sms", status=400)
    ids = [await failed(stack) for _ in range(2)]
    doubt = await in_doubt(stack)
    (lead, email), (answered, other) = await new_lead(stack), await new_lead(stack)
    gone = fresh_address()
    steps = [await follow_up(stack) for _ in range(2)]
    held = [await suspected(stack) for _ in range(2)]
    later, last = [(datetime.now(UTC) + timedelta(hours=hours)).isoformat() for hours in (2, 3)]
    silence = {"event_type": SILENCEABLE, "ends": later, "why": reason, "dedup_key": email}
    override = {"schedule": "sales", "person": "maria", "ends": later, "why": reason}
    begun: list[str] = []
    for path, body in (
        ("silences", silence | {"dedup_key": "y"}),
        ("oncall/overrides", override | {"begins": later, "ends": last}),
    ):
        made = await stack.http(
            "POST", f"/api/{path}", body, key="admin", headers={"X-Operator": "ewa"}
        )
        assert made.status == 200, made
        begun.append(str(made.body["id"]))
    admin: dict[str, tuple[str, str, Any]] = {
        "alert.retry": ("POST", "/api/dlq/retry", {"ids": ids[:1]}),
        "alert.discard": ("POST", "/api/dlq/discard", {"ids": ids[1:], "reason": reason}),
        "alert.resolve": (
            "POST",
            "/api/dlq/resolve",
            {"id": doubt, "outcome": "delivered", "reason": reason},
        ),
        "alert.cleanup": ("POST", "/api/dlq/cleanup", {"older_than_hours": 0}),
        "breaker.reset": ("POST", "/api/breakers/sms/reset", None),
        "silence.begin": ("POST", "/api/silences", silence),
        "silence.end": ("DELETE", f"/api/silences/{begun[0]}", None),
        "oncall.override": ("POST", "/api/oncall/overrides", override),
        "oncall.override-end": ("DELETE", f"/api/oncall/overrides/{begun[1]}", None),
        "case.cancel": ("POST", f"/api/cases/{lead}/cancel", {"reason": reason}),
        "person.export": ("GET", f"/api/consent/export/{email}", None),
        "person.erase": ("POST", "/api/consent/erase", {"email": gone}),
        "limits.change": ("PUT", "/api/ratelimits", {"chat": "600 per minute"}),
        "cache.clean": ("POST", "/api/cache/cleanup", None),
    }
    stop = {"conversation_id": steps[1]["conversation_id"], "reason": "staff"}
    service: dict[str, tuple[str, str, Any]] = {
        "case.answer": ("POST", f"/api/cases/{answered}/answer", {"answer": "taken", "by": "ewa"}),
        "lead.state": ("POST", f"/api/leads/{lead}/state", {"state": "lost", "reason": reason}),
        "submission.release": ("POST", f"/api/leads/suspected/{held[0]}/release", None),
        "submission.discard": ("POST", f"/api/leads/suspected/{held[1]}/discard", None),
        "followup.cancel": ("DELETE", f"/api/followups/{steps[0]['id']}", None),
        "followup.stop": ("POST", "/api/followups/stop", stop),
    }
    named = {act: (*call, "admin") for act, call in admin.items()}
    named |= {act: (*call, "service") for act, call in service.items()}
    return named, {email, other, gone, steps[0]["email"], steps[1]["email"]}


async def do(stack: Stack, calls: dict[str, Call]) -> dict[str, tuple[int, str]]:
    """Return the status and the request's id of each."""
    done = {}
    for act, (method, path, body, key) in calls.items():
        id_ = uuid.uuid4().hex
        headers = {"X-Operator": "ewa", "X-Request-ID": id_, "Idempotency-Key": act}
        answer = await stack.http(method, path, body, key=key, headers=headers)
        done[act] = answer.status, id_
    return done


def meddle(stack: Stack, does: str) -> None:
    for owner in OWNERS:
        stack.query(TRIGGER.format(owner=owner, does=does))


async def test_each_act_is_recorded_once_whatever_is_killed_and_none_is_done_without(
    stack: Stack,
) -> None:
    wanted, addresses = await calls(stack, f"because of {fresh_address()} and +48600700800")
    owned = {act: call for act, call in wanted.items() if act not in OF_THE_GATEWAY}
    meddle(stack, "RAISE EXCEPTION 'no record'")
    refused = await do(stack, owned)
    assert {status for status, _ in refused.values()} == {503}, refused

    meddle(stack, "NEW.due_at := '2100-01-01'")
    done = await do(stack, wanted)
    assert {act: status for act, (status, _) in done.items() if status >= 300} == {}
    for name in (*OWNERS, "console"):
        await stack.kill9(name)
    for owner in OWNERS:
        stack.query(RELEASED_TWICE.format(owner=owner))
        await stack.start(owner)

    async def all_sent() -> bool:
        left = [stack.query(f"SELECT 1 FROM {owner}.outbox LIMIT 1") for owner in OWNERS]
        return not any(left)

    await eventually(all_sent, 60)  # while the console is away
    await stack.start("console")
    ids = {id_: act for act, (_, id_) in done.items()}

    async def arrived() -> bool:
        rows = stack.query(ACTS, list(ids))
        return {row.request_id for row in rows} == set(ids)

    await eventually(arrived, 60)
    await eventually(lambda: _drained(stack), 30)
    rows = stack.query(ACTS, list(ids))
    assert sorted(row.action for row in rows) == sorted(wanted)
    assert {row.request_id: row.action for row in rows} == ids
    assert {(row.actor_kind, row.actor_id) for row in rows} == {
        ("env", "ADMIN_API_KEY"),
        ("env", "SERVICE_API_KEY"),
    }
    assert stack.query(ACTS, [id_ for _, id_ in refused.values()]) == []
    counts = {row.action: row.count for row in rows}
    assert (counts["alert.retry"], counts["alert.discard"]) == (1, 1)
    written = "\n".join(map(str, stack.query("SELECT * FROM console.staff_action")))
    assert [each for each in (*addresses, "+48600700800") if each in written] == []
    assert written.count("because of […] and […]") >= 6


async def _drained(stack: Stack) -> bool:
    queues = stack.vhost.call("GET", "queues")
    # A queue that is new to the management API has no count yet.
    (depth,) = [each.get("messages") for each in queues if each["name"] == "console.actions"]
    return bool(depth == 0)
