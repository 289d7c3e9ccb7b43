"""The record of acts: each act and each look once, and none of them without its record."""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from libs.domain.scopes import Scope
from services.gateway.http import FORWARDED
from tests.conftest import WholeSystem
from tests.integration.console.test_work import new_lead
from tests.integration.system.test_api_keys import made
from tests.support.eventually import eventually
from tests.support.forms import submit, suspected
from tests.support.shipped import whole
from tests.support.stack import Stack, quick_alerts_config
from tests.support.staff import SILENCEABLE
from tests.support.system import Answer, fresh_address

pytestmark = pytest.mark.promise("P12")

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
    shipped = whole("alerts")["answers"]
    chain = [{"to": "email", "person": "manager", "wait": "1h"}]
    other = {"asks": ["sms"], "within": "1h", "hours": "always", "chain": chain}
    folder = tmp_path_factory.mktemp("config")
    config = quick_alerts_config(folder, answers=shipped | {SILENCEABLE: other})
    with whole_system({"ALERTS_CONFIG": str(config)}) as running:
        yield running


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


async def kept_apart(stack: Stack) -> str:
    email = fresh_address()
    assert (await submit(stack, {"email": email}, trap="x")).status == 202
    return str((await suspected(stack, email))["id"])


async def follow_up(stack: Stack) -> dict[str, Any]:
    made = await stack.follow_up(fresh_address(), delay_seconds=86_400)
    return dict(made["items"][0])


async def delivered(stack: Stack) -> dict[str, Any]:
    """Deliver an alert; what a replay of it says."""
    since, alert_id = datetime.now(UTC).isoformat(), await stack.alert("sent")

    async def so() -> bool:
        return bool((await stack.state(alert_id)).get("state") == "delivered")

    await eventually(so, 30)
    return {"target": "slack", "since": since, "until": datetime.now(UTC).isoformat()}


async def calls(stack: Stack, reason: str) -> tuple[dict[str, Call], set[str]]:
    """Return a call for each act, by its name; and the addresses in what they act on."""
    await stack.sandbox.behave("sms", status=400)
    ids = [await failed(stack) for _ in range(2)]
    doubt = await in_doubt(stack)
    (lead, email), (answered, other) = await new_lead(stack), await new_lead(stack)
    (closed, _), lost = await new_lead(stack), {"state": "lost"}
    await stack.http("POST", f"/api/leads/{closed}/state", lost, key="service")
    gone = fresh_address()
    steps = [await follow_up(stack) for _ in range(2)]
    held = [await kept_apart(stack) for _ in range(2)]
    later, last = [(datetime.now(UTC) + timedelta(hours=hours)).isoformat() for hours in (2, 3)]
    silence: dict[str, Any] = {"matchers": [f"event_type={SILENCEABLE}", f"dedup_key={email}"]}
    silence |= {"ends": later, "why": reason}
    override = {"schedule": "sales", "person": "maria", "ends": later, "why": reason}
    begun: list[str] = []
    for path, body in (
        ("silences", silence | {"matchers": ["dedup_key=y"]}),
        ("oncall/overrides", override | {"begins": later, "ends": last}),
    ):
        made = await stack.http(
            "POST", f"/api/{path}", body, key="admin", headers={"X-Operator": "ewa"}
        )
        assert made.status == 200, made
        begun.append(str(made.body["id"]))
    job = {"name": "a job", "every": "1h", "grace": "10m"}
    jobs = [(await stack.http("POST", "/api/heartbeats", job, key="admin")).body for _ in range(2)]
    hook = {"url": "https://example.com/x", "events": ["*"], "owner_email": "dev@example.com"}
    hooks = [
        (await stack.http("POST", "/api/subscriptions", hook, key="admin")).body["id"]
        for _ in range(2)
    ]
    now = datetime.now(UTC)
    again = {"since": (now - timedelta(hours=1)).isoformat(), "until": now.isoformat()}
    admin: dict[str, tuple[str, str, Any]] = {
        "subscription.create": ("POST", "/api/subscriptions", hook),
        "subscription.rotate": ("POST", f"/api/subscriptions/{hooks[0]}/secret", None),
        "subscription.test": ("POST", f"/api/subscriptions/{hooks[0]}/test", None),
        "subscription.replay": ("POST", f"/api/subscriptions/{hooks[0]}/replay", again),
        "subscription.change": ("PATCH", f"/api/subscriptions/{hooks[0]}", {"paused": True}),
        "subscription.delete": ("DELETE", f"/api/subscriptions/{hooks[1]}", None),
        "heartbeat.create": ("POST", "/api/heartbeats", job),
        "heartbeat.change": ("PATCH", f"/api/heartbeats/{jobs[0]['id']}", {"paused": True}),
        "heartbeat.rotate": ("POST", f"/api/heartbeats/{jobs[0]['id']}/rotate", None),
        "heartbeat.delete": ("DELETE", f"/api/heartbeats/{jobs[1]['id']}", None),
        "alert.retry": ("POST", "/api/dlq/retry", {"ids": ids[:1]}),
        "alert.discard": ("POST", "/api/dlq/discard", {"ids": ids[1:], "reason": reason}),
        "alert.resolve": (
            "POST",
            "/api/dlq/resolve",
            {"id": doubt, "outcome": "delivered", "reason": reason},
        ),
        "alert.replay": ("POST", "/api/alerts/replay", await delivered(stack)),
        "alert.cleanup": ("POST", "/api/dlq/cleanup", {"older_than_hours": 0}),
        "breaker.reset": ("POST", "/api/breakers/sms/reset", None),
        "silence.begin": ("POST", "/api/silences", silence),
        "silence.end": ("DELETE", f"/api/silences/{begun[0]}", None),
        "oncall.override": ("POST", "/api/oncall/overrides", override),
        "oncall.quiet": ("PUT", "/api/oncall/quiet/maria", {}),
        "oncall.override-end": ("DELETE", f"/api/oncall/overrides/{begun[1]}", None),
        "case.cancel": ("POST", f"/api/cases/{lead}/cancel", {"reason": reason}),
        "person.export": ("GET", f"/api/consent/export/{email}", None),
        "person.erase": ("POST", "/api/consent/erase", {"email": gone}),
        "limits.change": ("PUT", "/api/ratelimits", {"chat": "600 per minute"}),
        "cache.clean": ("POST", "/api/cache/cleanup", None),
        "schema.create": ("POST", "/api/migration/create-dead-letter-queue", None),
    }
    stop = {"conversation_id": steps[1]["conversation_id"], "reason": "staff"}
    dead = str(uuid.uuid4())
    stack.query(
        "INSERT INTO followups.undeliverable (email, conversation_id, reason) VALUES (%s, %s, '')",
        fresh_address(),
        dead,
    )
    taken = {"answer": "taken", "by": "manager"}
    service: dict[str, tuple[str, str, Any]] = {
        "case.answer": ("POST", f"/api/cases/{answered}/answer", taken),
        "lead.note": ("POST", f"/api/leads/{lead}/notes", {"text": email}),
        "lead.call": ("POST", f"/api/leads/{lead}/calls", {"result": "reached"}),
        "lead.edit": ("POST", f"/api/leads/{lead}/facts", {"city": "Gdynia"}),
        "lead.assign": ("POST", f"/api/leads/{lead}/owner", {"owner": "Ewa Lis"}),
        "lead.state": ("POST", f"/api/leads/{lead}/state", {"state": "lost", "reason": reason}),
        "lead.undo": ("POST", f"/api/leads/{closed}/undo", {}),
        "submission.release": ("POST", f"/api/leads/suspected/{held[0]}/release", None),
        "submission.discard": ("POST", f"/api/leads/suspected/{held[1]}/discard", None),
        "followup.cancel": ("DELETE", f"/api/followups/{steps[0]['id']}", None),
        "followup.stop": ("POST", "/api/followups/stop", stop),
        "mail.retry": ("POST", f"/api/mail/undeliverable/{dead}/retry", None),
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


@dataclass(frozen=True)
class Look:
    path: str
    action: str
    kind: str
    asked: str = "all"
    """What the record says of a list that shows nobody, or more than one."""
    id: str = "id"
    """The name of what identifies those who are seen."""


PERSONS = {Scope.LEADS_READ, Scope.FOLLOWUPS_READ, Scope.CONSENT_READ, Scope.DLQ_READ}
SHOW_NOBODY = {
    "/api/followups/sequences",
    "/api/alerts", "/api/consent/audit/checkpoints", "/api/consent/audit/verify",
    "/api/consent/erasures", "/api/consent/export/{email}", "/api/breakers", "/api/dlq/stats",
    "/api/migration/dlq-status", "/api/consent/erasures/awaiting", "/api/mail/rates",
    "/api/consent/report", "/api/leads/stats",
}  # fmt: skip
"""Counts, hashes and states; a list of deliveries without what they say. An export is an act.
Nobody here asked for an erasure and did not confirm it."""
EXPORTS = {"/api/consent/export/{email}", "/api/consent/report"}


async def looks(stack: Stack) -> tuple[list[Look], list[str]]:
    """Return each way to look at somebody's data, and the addresses of those who are seen."""
    (lead, email), doubt = await new_lead(stack), await in_doubt(stack)
    step, agreed = await follow_up(stack), fresh_address()
    for _ in range(2):
        await kept_apart(stack)
    await stack.opt_in(agreed)
    await stack.sandbox.behave("sms", status=400)
    alert, _ = await failed(stack), await failed(stack)
    return [
        Look(f"/api/leads?email={email}", "lead.look", "lead"),
        Look("/api/leads?limit=1000&topic=dom", "lead.look", "lead", "topic=dom"),
        Look(
            "/api/leads?format=csv&until=2020-01-01T00:00:00Z&phone=600700800", "lead.look", "lead",
            "until=2020-01-01T00:00:00Z phone=[…] format=csv",
        ),
        Look(f"/api/leads/{lead}", "lead.look", "lead"),
        Look("/api/leads/suspected", "lead.look", "submission"),
        Look(f"/api/followups?email={step['email']}", "followups.look", "conversation",
            "email=[…]", "conversation_id"),
        Look("/api/mail/undeliverable", "mail.look", "conversation", id="conversation_id"),
        Look(f"/api/alerts/{alert}", "alert.look", "alert"),
        Look("/api/dlq/pending?target=slack", "alert.look", "alert", "state=pending target=slack"),
        Look("/api/dlq/failed?target=sms", "alert.look", "alert", "state=failed target=sms"),
        Look("/api/dlq/silenced?target=sms", "alert.look", "alert", "state=silenced target=sms"),
        Look(f"/api/dlq/in-doubt?id={doubt}", "alert.look", "alert"),
        Look(f"/api/consent/audit/{agreed}", "person.look", "person", id="subject"),
        Look(f"/api/unsubscribe/status/{agreed}", "person.look", "person", id="email"),
    ], [email, step["email"], agreed, "600700800"]  # fmt: skip


async def test_each_look_at_a_person_with_a_key_is_recorded_and_none_shows_without(
    stack: Stack,
) -> None:
    scopes = {*PERSONS, Scope.ALERTS_READ}
    key = await made(stack, *sorted(scopes))
    ways, addresses = await looks(stack)
    paths = [urlsplit(way.path).path for way in ways]
    for each in FORWARDED:
        if each.method == "GET" and each.requires.scope in scopes:
            shape = re.compile(re.sub(r"\{\w+(:[^}]*\}[^}]*|)\}", "[^/]+", each.path))
            assert each.path in SHOW_NOBODY or any(map(shape.fullmatch, paths)), each.path

    async def look(way: Look) -> tuple[Answer, str]:
        id_ = uuid.uuid4().hex
        headers = {"X-API-KEY": key["key"], "X-Request-ID": id_}
        return await stack.http("GET", way.path, headers=headers), id_

    meddle(stack, "RAISE EXCEPTION 'no record'")
    for way in ways:
        refused, _ = await look(way)
        assert refused.status == 503, way
        assert [each for each in addresses if each in str(refused.body)] == []

    meddle(stack, "RETURN NEW")
    for way in ways:
        shown, id_ = await look(way)
        assert shown.status == 200, (way, shown)
        row = await eventually(partial(_recorded, stack, id_), 30)
        said = row.actor_kind, row.actor_id, row.client_address, row.action, row.object_kind
        assert said == ("key", key["id"], "127.0.0.1", way.action, way.kind)
        seen = (
            {each[way.id] for each in shown.body.get("items", [shown.body])}
            if isinstance(shown.body, dict)
            else set()
        )  # the CSV has its header only
        assert row.count == len(seen), way
        if way.id != "email":
            assert row.object_ref == (min(seen) if len(seen) == 1 else way.asked), way
    written = "\n".join(map(str, stack.query("SELECT * FROM console.staff_action")))
    assert [each for each in addresses if each in written] == []


async def _recorded(stack: Stack, request_id: str) -> Any:
    return next(iter(stack.query(ACTS, [request_id])), None)


async def test_the_keys_of_env_are_told_apart_and_what_shows_nobody_is_not_recorded(
    stack: Stack,
) -> None:
    ids = []
    for path, key in (("/api/leads", "service"), ("/api/dlq/failed", "admin")):
        id_ = uuid.uuid4().hex
        headers = {"X-Operator": "ewa", "X-Request-ID": id_}
        assert (await stack.http("GET", path, key=key, headers=headers)).status == 200
        row = await eventually(partial(_recorded, stack, id_), 30)
        ids.append((row.actor_kind, row.actor_id, row.actor_name))
    assert ids == [("env", "SERVICE_API_KEY", None), ("env", "ADMIN_API_KEY", "ewa")]
    mine = []
    paths = {f"{path}?state=failed" for path in SHOW_NOBODY - EXPORTS}
    for path in (f"/api/alerts/{await stack.alert('x')}", *paths):
        of_service = ("/api/alerts", "/api/leads", "/api/followups")
        key = "service" if path.startswith(of_service) else "admin"
        mine.append(uuid.uuid4().hex)
        answer = await stack.http("GET", path, key=key, headers={"X-Request-ID": mine[-1]})
        assert answer.status == 200 or path not in paths, path
    await eventually(partial(_drained, stack), 30)
    assert stack.query("SELECT 1 FROM alerts.outbox WHERE type = 'action.record'") == []
    assert stack.query(ACTS, mine) == []
