"""The record of acts: each act and each look once, and none of them without its record."""

import re
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import pytest

from libs.domain.scopes import Scope
from services.gateway.http import FORWARDED
from tests.conftest import WholeSystem
from tests.integration.console.test_work import new_lead
from tests.support.consumers import until
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
    await stack.until(id_, "failed")
    return id_


async def kept_apart(stack: Stack) -> str:
    email = fresh_address()
    assert (await submit(stack, {"email": email}, trap="x")).status == 202
    return str((await suspected(stack, email))["id"])


async def follow_up(stack: Stack) -> dict[str, Any]:
    made = await stack.follow_up(fresh_address(), delay_seconds=86_400)
    return dict(made["items"][0])


def filled(part: str, **names: object) -> Any:
    """Return a part of record.toml, with these names filled in."""
    text = Path(__file__).with_name("record.toml").read_text(encoding="utf-8")
    return tomllib.loads(Template(text).safe_substitute(names))[part]


async def calls(stack: Stack, reason: str) -> tuple[dict[str, Call], set[str]]:
    """Return a call for each act, by its name; and the addresses in what they act on."""

    async def begun(path: str, body: dict[str, Any]) -> str:
        headers = {"X-Operator": "ewa"}
        answer = await stack.http("POST", f"/api/{path}", body, key="admin", headers=headers)
        assert answer.status < 300, answer
        return str(answer.body["id"])

    await stack.sandbox.behave("sms", status=400)
    failures = [await failed(stack) for _ in range(2)]
    doubt = await in_doubt(stack)
    (lead, email), (answered, other), (closed, _) = [await new_lead(stack) for _ in range(3)]
    await stack.http("POST", f"/api/leads/{closed}/state", {"state": "lost"}, key="service")
    steps = [await follow_up(stack) for _ in range(2)]
    held = [await kept_apart(stack) for _ in range(2)]
    now, hour = datetime.now(UTC), timedelta(hours=1)
    ago, later, last = [(now + hours * hour).isoformat() for hours in (-1, 2, 3)]
    about = {"ends": later, "why": reason}
    override = about | {"schedule": "sales", "person": "maria", "begins": later, "ends": last}
    silenced = {"matchers": [f"event_type={SILENCEABLE}", "dedup_key=y"]}
    job = {"name": "a job", "every": "1h", "grace": "10m"}
    jobs = [await begun("heartbeats", job) for _ in range(2)]
    hook = {"url": "https://example.com/x", "events": ["*"], "owner_email": "dev@example.com"}
    hooks = [await begun("subscriptions", hook) for _ in range(2)]
    sent_after, sent = datetime.now(UTC).isoformat(), await stack.alert("sent")
    await stack.until(sent, "delivered")
    gone, dead = fresh_address(), str(uuid.uuid4())
    stack.query(
        "INSERT INTO followups.undeliverable (email, conversation_id, reason) VALUES (%s, %s, '')",
        fresh_address(),
        dead,
    )
    names = {
        "reason": reason, "doubt": doubt, "lead": lead, "email": email, "answered": answered,
        "closed": closed, "gone": gone, "dead": dead, "silenceable": SILENCEABLE, "later": later,
        "failed": failures[0], "other_failed": failures[1], "held": held[0], "other_held": held[1],
        "job": jobs[0], "other_job": jobs[1], "hook": hooks[0], "other_hook": hooks[1],
        "step": steps[0]["id"], "conversation": steps[1]["conversation_id"],
        "silence": await begun("silences", silenced | about),
        "override": await begun("oncall/overrides", override),
        "sent_after": sent_after, "sent_before": datetime.now(UTC).isoformat(),
        "hour_ago": ago, "now": now.isoformat(),
    }  # fmt: skip
    named = {
        act: (*call.split(" ", 1), body[0] if body else None, key)
        for key in ("admin", "service")
        for act, (call, *body) in filled(key, **names).items()
    }
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

    await until(
        lambda: not any(stack.query(f"SELECT 1 FROM {owner}.outbox LIMIT 1") for owner in OWNERS),
        60,
    )  # while the console is away
    await stack.start("console")
    ids = {id_: act for act, (_, id_) in done.items()}

    await until(lambda: {row.request_id for row in stack.query(ACTS, list(ids))} == set(ids), 60)
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
    names = {"email": email, "lead": lead, "enrolled": step["email"], "failed": alert}
    names |= {"doubt": doubt, "agreed": agreed}
    ways = [Look(*row) for row in filled("looks", **names)["rows"]]
    return ways, [email, step["email"], agreed, "600700800"]


async def test_each_look_at_a_person_with_a_key_is_recorded_and_none_shows_without(
    stack: Stack,
) -> None:
    scopes = {*PERSONS, Scope.ALERTS_READ}
    key = await stack.make_key(*sorted(scopes))
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
    await stack.sandbox.behave("slack", hang=True)  # what it answers may quote the alert: a look
    for path in (f"/api/alerts/{await stack.alert('x')}", *paths):
        of_service = ("/api/alerts", "/api/leads", "/api/followups")
        key = "service" if path.startswith(of_service) else "admin"
        mine.append(uuid.uuid4().hex)
        answer = await stack.http("GET", path, key=key, headers={"X-Request-ID": mine[-1]})
        assert answer.status == 200 or path not in paths, path
    await stack.sandbox.behave("slack", status=200)
    await eventually(partial(_drained, stack), 30)
    assert stack.query("SELECT 1 FROM alerts.outbox WHERE type = 'action.record'") == []
    assert stack.query(ACTS, mine) == []
