"""Every call of spec section 4 once, its ordinary case, as a client would make it."""

import html
import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.fullstack.conftest import Running
from tests.support.eventually import eventually
from tests.support.system import LEAD, WORDING, fresh_address

pytestmark = pytest.mark.fullstack

# As spec section 4 has them, a method and its paths a line; the documents of the API beside them.
_CALLS = Path(__file__).with_name("section_4.txt").read_text(encoding="utf-8").splitlines()
SECTION_4 = {(method, path) for method, *paths in map(str.split, _CALLS) for path in paths}


class Calls:
    """Makes calls, by the template of their path, and remembers which."""

    def __init__(self, system: Running) -> None:
        self._system = system
        self.made: set[tuple[str, str]] = set()

    async def __call__(
        self,
        method: str,
        template: str,
        body: Any = None,
        *,
        status: int = 200,
        key: str | None = None,
        query: str = "",
        posted: dict[str, str] | None = None,
        csv: str | None = None,
        headers: dict[str, str] | None = None,
        **path: str,
    ) -> Any:
        where = template.format(**path) + query
        answer = await self._system.http(
            method, where, body, key=key, form=posted, csv=csv, headers=headers
        )
        assert answer.status == status, (method, template, answer)
        assert re.fullmatch(r"[\w-]{8,}", answer.headers["X-Request-ID"])
        self.made.add((method, template))
        return answer.body


def _has(body: dict[str, Any], names: str) -> None:
    assert set(names.split()) <= body.keys(), body


async def test_every_call_of_the_contract_does_its_ordinary_case(system: Running) -> None:
    call = Calls(system)
    await _health(call)
    person = await _public(call)
    await _mailed_links(call, system)
    await _alerts(call)
    await _follow_ups(call)
    await _import(call, system)
    await _mail(call)
    await _rights(call)
    await _leads(call)
    await _forms(call, system)
    await _dead_letters(call, system)
    await _cases(call)
    await _operations(call)
    await _keys(call)
    await _staff(call)
    await _consent(call, person)
    assert call.made == await _documented(system)
    assert call.made >= SECTION_4


async def _documented(system: Running) -> set[tuple[str, str]]:
    document = (await system.http("GET", "/openapi.json")).body
    return {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method in {"get", "post", "put", "patch", "delete"}
    }


async def _health(call: Calls) -> None:
    assert (await call("GET", "/api/health"))["status"] == "healthy"
    assert await call("GET", "/api/ready") == {"status": "ready"}
    deep = await call("GET", "/api/health/deep")
    assert deep["status"] in {"healthy", "degraded"}
    assert "queues" not in deep  # names are for key holders
    deep = await call("GET", "/api/health/deep", key="service")
    _has(deep, "components circuit_breakers queues")
    assert (await call("GET", "/openapi.json"))["openapi"].startswith("3.1")
    page = await call("GET", "/docs")
    assert "<html" in page


async def _public(call: Calls) -> str:
    address, session = fresh_address(), str(uuid.uuid4())
    said: dict[str, Any] = {**LEAD, "session_id": session, "email": address, "name": "Anna Łącka"}
    said["consent"] = {"marketing": True, "text": WORDING.text}
    reply = await call("POST", "/api/chatbot/chat", said)
    _has(reply, "reply session_id conversation_id ask card")
    assert (await call("GET", "/api/chatbot/chat"))["ask"]["choices"]
    assert "<form" in await call("GET", "/chat")
    assert "<form" in await call("POST", "/chat", posted={"message": "Dzień dobry"})
    assert reply["session_id"] == session

    other = fresh_address()
    agreed = {"email": other, "text": WORDING.text, "language": "pl", "source": "form"}
    await call("POST", "/api/opt-in", agreed)
    status = await call("GET", "/api/unsubscribe/status/{email}", email=other)
    assert status["unsubscribed"] is False
    assert status["email"] is status["consents"] is status["last_action"] is None
    status = await call("GET", "/api/unsubscribe/status/{email}", email=other, key="service")
    assert (status["email"], status["last_action"]) == (other, "opt-in")

    left = await call("POST", "/api/unsubscribe", {"email": other, "reason": "za dużo"})
    assert left == {"success": True, "email": other, "unsubscribed": True}
    revoked = await call("POST", "/api/revoke-consent", {"email": other})
    assert (revoked["success"], revoked["email"]) == (True, other)
    assert "marketing" in revoked["consents_revoked"]
    _has(revoked["erasure"], "status")
    return other


async def _mailed_links(call: Calls, system: Running) -> None:
    address = fresh_address()
    agreed = {"email": address, "text": WORDING.text, "language": "pl", "source": "form"}
    await call("POST", "/api/opt-in", agreed)
    query = await _query(system, address, "/opt-in/confirm")
    assert "<form" in await call("GET", "/opt-in/confirm", query=query)
    await call("POST", "/opt-in/confirm", query=query, posted={})

    await system.follow_up(address)
    query = await _query(system, address, "/unsubscribe")
    assert ">Zgadzam się: " not in await call("GET", "/preferences", query=query)
    assert "<form" in await call("GET", "/unsubscribe", query=query)
    await call("POST", "/unsubscribe", query=query, posted={"List-Unsubscribe": "One-Click"})
    known = await system.http("GET", f"/api/unsubscribe/status/{address}{query}")
    assert (known.body["email"], known.body["unsubscribed"]) == (address, True)
    assert ">Zgadzam się: " in await call("GET", "/preferences", query=query)
    await call("POST", "/preferences", query=query, posted={"purpose": "marketing"})

    revoked = await system.http("POST", "/api/revoke-consent", {"email": address})
    assert revoked.body["erasure"]["status"] == "awaiting_confirmation"
    query = await _query(system, address, "/erasure/confirm")
    assert "<form" in await call("GET", "/erasure/confirm", query=query)
    await call("POST", "/erasure/confirm", query=query, posted={})

    async def done() -> bool:
        audit = await system.http("GET", f"/api/consent/audit/{address}", key="admin")
        return bool(audit.body["erasure"]["status"] == "done" and not audit.body["entries"])

    await eventually(done, 40)


async def _query(system: Running, address: str, path: str) -> str:
    (link,) = await eventually(lambda: system.links(address, path), 40)
    return link.removeprefix(path)


async def _alerts(call: Calls) -> None:
    one = {"event_type": "slack_alert", "payload": {"text": "every call"}, "severity": "info"}
    accepted = await call("POST", "/api/alerts", one, status=202, key="service")
    assert accepted["status_url"].endswith(accepted["id"])
    two = [{**one, "dedup_key": str(uuid.uuid4())}, {**one, "target": "webhook"}]
    await call("POST", "/api/alerts/batch", {"alerts": two}, status=202, key="service")
    kuma = {"heartbeat": {"status": 1}, "monitor": {"id": 7}, "msg": "[shop] [Up] 200 - OK"}
    path = "/api/alerts/from/{sender}"
    await call("POST", path, kuma, sender="uptime-kuma", status=202, key="service")

    async def ledgered() -> bool:
        path = f"/api/alerts/{accepted['id']}"
        return (await call._system.http("GET", path, key="service")).status == 200

    await eventually(ledgered, 30)
    found = await call("GET", "/api/alerts/{id}", id=accepted["id"], key="service")
    _has(found, "id state attempts deliveries")
    listed = await call("GET", "/api/alerts", query="?state=failed", key="service")
    _has(listed, "items next_cursor total")


async def _follow_ups(call: Calls) -> None:
    address = fresh_address()
    wanted = {"email": address, "sequence": "default", "delay_seconds": 86_400}
    steps = (await call("POST", "/api/followups", wanted, status=202, key="service"))["items"]
    again = await call("POST", "/api/followups", wanted, key="service")
    assert [step["id"] for step in again["items"]] == [step["id"] for step in steps]
    listed = await call("GET", "/api/followups", query=f"?email={address}", key="service")
    assert len(listed["items"]) == len(steps)
    listed = await call("GET", "/api/followups", query="?status=scheduled", key="service")
    assert {step["id"] for step in steps} <= {step["id"] for step in listed["items"]}
    gone = await call("DELETE", "/api/followups/{id}", id=steps[0]["id"], key="service")
    assert gone["status"] == "cancelled"
    taken_over = {"email": address, "reason": "staff"}
    assert await call("POST", "/api/followups/stop", taken_over, key="service") == {"cancelled": 0}


async def _rights(call: Calls) -> None:
    who = {"email": fresh_address()}
    for more in ({}, {"lifted": True}):
        done = await call("POST", "/api/consent/restrict", who | more, key="admin")
        assert done["restricted"] is not bool(more)
    await call("POST", "/api/leads/correct", who | {"name": "Anna"}, key="admin")
    await call("POST", "/api/revoke-consent", who)
    _has(await call("GET", "/api/consent/erasures/awaiting", key="admin"), "items")
    assert (await call("POST", "/api/consent/erasures/dismiss", who, key="admin"))["dismissed"]


async def _mail(call: Calls) -> None:
    mail = (
        f"From: {fresh_address()}\nMessage-ID: <{uuid.uuid4()}@example.com>\n\nWhat does it cost?\n"
    )
    raw = {"Content-Type": "message/rfc822"}
    for outcome in ("unknown", "duplicate"):
        came = await call("POST", "/api/mail/inbound", csv=mail, headers=raw, key="service")
        assert came["outcome"] == outcome
    _has(await call("GET", "/api/mail/rates", key="admin"), "sent")
    _has(await call("GET", "/api/mail/undeliverable", key="service"), "items next_cursor")
    retry, nobody = "/api/mail/undeliverable/{id}/retry", str(uuid.uuid4())
    await call("POST", retry, id=nobody, status=404, key="service")  # no mail came back


async def _import(call: Calls, system: Running) -> None:
    address = fresh_address()
    file = f"email;area\n{address};80,5\nnobody;1\n"
    own = await system.own_key("leads:import")
    report = await call("POST", "/api/leads/import", csv=file, headers=own)
    assert (report["rows"], report["created"]) == (2, 1)
    assert [row["line"] for row in report["rejected"]] == [3]


async def _forms(call: Calls, system: Running) -> None:
    form = await call("GET", "/api/forms/{form}", form="contact")
    assert form["consents"][0]["text"] in html.unescape(
        await call("GET", "/forms/{form}", form="contact")
    )
    await call("GET", "/privacy", status=302)
    newest = await call("GET", "/widget.json")
    script = await call("GET", "/widget/{build}", build=newest["url"].rpartition("/")[2])
    assert script == await call("GET", "/widget.js")
    for decision in ("release", "discard"):
        email = fresh_address()
        sent = {"form": "contact", "language": "pl", "fields": {"email": email}, "trap": "x"}
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Origin": system.url}
        accepted = await call("POST", "/api/leads", sent, headers=headers, status=202)

        async def held(email: str = email) -> bool:
            found = await call("GET", "/api/leads/suspected", key="service")
            return any(item["fields"]["email"] == email for item in found["items"])

        await eventually(held, 30)
        path = f"/api/leads/suspected/{{id}}/{decision}"
        decided = await call("POST", path, id=accepted["id"], key="service")
        assert decided["id"] == accepted["id"]


async def _leads(call: Calls) -> None:
    address = fresh_address()
    said = {**LEAD, "session_id": str(uuid.uuid4()), "email": address}
    await call("POST", "/api/chatbot/chat", said)
    query = f"?email={address}"
    (lead,) = (await call("GET", "/api/leads", query=query, key="service"))["items"]
    taken = {"state": "taken", "reason": "dzwonię dziś"}
    await call("POST", "/api/leads/{id}/state", taken, id=lead["id"], key="service")
    for act, body in (
        ("notes", {"text": "woli po 16"}), ("calls", {"result": "no_answer"}),
        ("facts", {"city": "Gdynia"}), ("owner", {"owner": "Ewa Lis"}),
        ("state", {"state": "won"}), ("undo", {}),
    ):  # fmt: skip
        await call("POST", f"/api/leads/{{id}}/{act}", body, id=lead["id"], key="service")
    await call("GET", "/api/leads/stats", key="service")
    await call("POST", "/api/unsubscribe/status", {"subjects": [address]}, key="service")
    found = await call("GET", "/api/leads/{id}", id=lead["id"], key="service")
    assert (found["state"], found["email"]) == ("taken", address)

    await call("GET", "/transcript", query="?token=of-an-older-release", status=303)
    for method in ("GET", "POST"):  # no case is open
        await call(method, "/a/{token}", token="A" * 22, status=410)
    # No signing secret is set.
    await call("POST", "/api/slack/actions", posted={"payload": "{}"}, status=404)


async def _dead_letters(call: Calls, system: Running) -> None:
    await system.sandbox.behave("slack", status=422)  # never: it is malformed
    ids = [await system.alert(f"dead {uuid.uuid4()}") for _ in range(2)]

    async def failed() -> list[Any]:
        rows = (await call("GET", "/api/dlq/failed", key="admin"))["items"]
        found = [row for row in rows if row["id"] in ids]
        return found if len(found) == len(ids) else []

    assert {row["target"] for row in await eventually(failed, 30)} == {"slack"}
    await system.sandbox.heal()
    for listing in ("/api/dlq/pending", "/api/dlq/in-doubt"):
        _has(await call("GET", listing, key="admin"), "items next_cursor")
    stats = await call("GET", "/api/dlq/stats", key="admin")
    _has(stats, "pending failed delivered discarded in_doubt oldest_pending_seconds targets")

    retried = await call("POST", "/api/dlq/retry", {"ids": ids[:1]}, key="admin")
    assert retried == {"matched": 1, "requeued": 1, "skipped": 0}
    thrown = {"ids": ids[1:], "reason": "test"}
    assert await call("POST", "/api/dlq/discard", thrown, key="admin") == {"discarded": 1}
    # Nothing can be brought into doubt from outside.
    doubt = {"id": str(uuid.uuid4()), "outcome": "delivered", "reason": "seen in the inbox"}
    await call("POST", "/api/dlq/resolve", doubt, status=404, key="admin")
    oldest = {"older_than_hours": 87_600}
    _has(await call("POST", "/api/dlq/cleanup", oldest, key="admin"), "deleted")


async def _cases(call: Calls) -> None:
    _has(await call("GET", "/api/cases", key="service"), "items next")
    unknown = str(uuid.uuid4())
    await call("GET", "/api/cases/{id}", id=unknown, status=404, key="service")
    body = {"answer": "taken", "by": "no one"}
    await call("POST", "/api/cases/{id}/answer", body, id=unknown, status=422, key="service")
    why = {"reason": "a test"}
    await call("POST", "/api/cases/{id}/cancel", why, id=unknown, status=404, key="admin")
    _has(await call("GET", "/api/cases/check", key="admin"), "ok opened open undelivered")


async def _operations(call: Calls) -> None:
    _has((await call("GET", "/api/breakers", key="admin"))["slack"], "state failures next_trial_at")
    await call("POST", "/api/breakers/{target}/reset", target="sms", key="admin")
    limits = await call("GET", "/api/ratelimits", key="admin")
    assert limits
    await call("PUT", "/api/ratelimits", {"hour": None}, key="admin")
    assert (await call("POST", "/api/cache/cleanup", key="admin"))["purged"] >= 0
    made = await call("POST", "/api/migration/create-dead-letter-queue", key="admin")
    assert made["success"] is True
    _has(made, "message tables indexes")
    status = await call("GET", "/api/migration/dlq-status", key="admin")
    assert "dead_letter_queue" in status["tables"]
    _has(await call("GET", "/api/oncall", key="admin"), "schedules overrides")
    nobody = {"schedule": "unknown", "person": "ola", "ends": "2030-01-01T00:00:00Z"}
    await call("POST", "/api/oncall/overrides", nobody, status=422, key="admin")
    swap = {"schedule": "unknown", "shifts": ["2030-01-01T00:00:00Z"] * 2}
    await call("POST", "/api/oncall/swaps", swap, status=422, key="admin")
    await call("DELETE", "/api/oncall/overrides/{id}", id="999999", status=404, key="admin")
    _has(await call("GET", "/api/silences", key="admin"), "items")
    unknown = {"event_type": "unknown", "ends": "2030-01-01T00:00:00Z", "why": "a test"}
    await call("POST", "/api/silences", unknown, status=422, key="admin")
    past = {"target": "slack", "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    _has(await call("POST", "/api/alerts/replay", past, key="admin"), "matched requeued")
    every = {"matchers": ["event_type=~.*"]}
    _has(await call("POST", "/api/silences/preview", every, key="admin"), "matched complete")
    _has(await call("GET", "/api/dlq/silenced", key="admin"), "items")
    await call("DELETE", "/api/silences/{id}", id="999999", status=404, key="admin")
    await _heartbeats(call)
    check = await call("GET", "/api/ledger/check", key="admin")
    _has(check, "ok accepted delivered pending failed discarded in_doubt stranded")


async def _heartbeats(call: Calls) -> None:
    job = {"name": "a test", "every": "1h", "grace": "10m"}
    made = await call("POST", "/api/heartbeats", job, status=201, key="admin")
    _has(made, "id url state")
    _has(await call("GET", "/api/heartbeats", key="admin"), "items next_cursor")
    one = "/api/heartbeats/{id}"
    _has(await call("GET", one, id=made["id"], key="admin"), "pings")
    rotated = await call("POST", f"{one}/rotate", id=made["id"], key="admin")
    await call("PATCH", one, {"paused": True}, id=made["id"], key="admin")
    token = rotated["url"].rpartition("/")[2]
    for method in ("GET", "POST"):
        assert await call(method, "/ping/{token}", token=token) == "OK\n"
        assert await call(method, "/ping/{token}/{signal}", token=token, signal="start") == "OK\n"
    await call("DELETE", one, id=made["id"], key="admin")


async def _keys(call: Calls) -> None:
    ends = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    crm = {"name": "crm", "purpose": "a test", "owner": "Ewa", "scopes": ["alerts:read"]}
    made = await call("POST", "/api/keys", crm | {"expires_at": ends}, status=201, key="admin")
    _has(made, "id key in_force_on")
    _has(await call("GET", "/api/keys", key="admin"), "items restored")
    await call("POST", "/api/keys/{id}/rotate", {}, id=made["id"], key="admin")
    await call("POST", "/api/keys/{id}/revoke", {"reason": "over"}, id=made["id"], key="admin")
    await call("POST", "/api/keys/accept-restore", {}, status=409, key="admin")


async def _staff(call: Calls) -> None:
    eva = {"email": fresh_address(), "name": "Ewa", "roles": ["viewer"]}
    made = await call("POST", "/api/staff", eva, status=201, key="admin")
    ewa = {"id": made["id"], "key": "admin"}
    assert made["link"] is None  # it was mailed
    again = await call("POST", "/api/staff/{id}/invitation", {"show_link": True}, status=201, **ewa)
    assert again["link"].startswith("http")
    await call("POST", "/api/staff/{id}/roles", {"roles": ["sales"]}, **ewa)
    await call("POST", "/api/staff/{id}/reset-factor", **ewa)
    await call("POST", "/api/staff/{id}/disable", {"reason": "has left"}, **ewa)
    (person,) = (await call("GET", "/api/staff", key="admin"))["items"]
    assert (person["roles"], person["disabled"]) == (["sales"], True)
    acts = (await call("GET", "/api/actions", key="admin"))["items"]
    # Those of one transaction have one time.
    assert sorted(each["action"] for each in acts[:5]) == [
        "staff.disable",
        "staff.factor-reset",
        "staff.link-shown",
        "staff.power",
        "staff.roles",
    ]


async def _consent(call: Calls, person: str) -> None:
    audit = await call("GET", "/api/consent/audit/{email}", email=person, key="admin")
    actions = [entry["action"] for entry in audit["entries"]]
    assert actions == ["opt-in", "unsubscribe", "revoke-consent"]
    _has(await call("GET", "/api/consent/export/{email}", email=person, key="admin"), "email")
    asked = {"purpose": "marketing", "channel": "email"}
    query = "?" + urlencode(asked | {"at": "2026-11-30"})
    listed = await call("GET", "/api/consent/report", query=query, key="admin")
    signed = asked | {"at": listed["at"], "sha256": "0" * 64, "people": 0}
    _has(await call("POST", "/api/consent/report", signed, key="admin"), "signature")
    erased = await call("POST", "/api/consent/erase", {"email": person}, key="admin")
    _has(erased["erasure"], "status")
    _has(await call("GET", "/api/consent/erasures", key="admin"), "in_progress days_left")
    verified = await call("GET", "/api/consent/audit/verify", key="admin")
    assert (verified["ok"], verified["first_broken"]) == (True, None)
    kept = (await call("GET", "/api/consent/audit/checkpoints", key="admin"))["checkpoints"]
    verified = await call("POST", "/api/consent/audit/verify", {"checkpoints": kept}, key="admin")
    assert verified["ok"]
    replayed = await call("POST", "/api/consent/replay-erasures", key="admin")
    assert replayed["already"] >= 1
