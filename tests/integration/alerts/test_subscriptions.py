"""Subscriptions: each event that they want reaches them, signed; a fault of one is its own."""

import asyncio
import operator
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from libs.common.messaging.broker import Message
from libs.common.messaging.queue_depths import KEPT_SECONDS
from services.alerts.http import subscriptions as routes
from tests.integration.alerts.conftest import Alerts, Consent, StartAlerts
from tests.support.brokers import Vhost
from tests.support.contracts import golden
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.receivers import Got, Manners, Receivers, receivers

pytestmark = pytest.mark.promise("P15")

PERSONAL = {"X_Personal_Data": "yes"}
LOOPBACK = {"SUBSCRIPTIONS_PRIVATE_NETWORKS": f"{HOST}/32"}
OWNER = "dev@crm.example.com"


@pytest.fixture
async def outside() -> AsyncIterator[Receivers]:
    async with receivers() as subject:
        yield subject


@pytest.fixture
async def subject(alerts: StartAlerts) -> Alerts:
    return await alerts(ALERTS_ESCALATION_SECONDS="1", **LOOPBACK)


async def subscribe(
    subject: Alerts, url: str, *events: str, personal: bool = False, **headers: str
) -> dict[str, Any]:
    body = {
        "url": url, "events": list(events) or ["*"], "owner_email": OWNER,
        "personal_data": personal,
    }  # fmt: skip
    sent = (PERSONAL if personal else {}) | headers
    status, made = await subject.http("POST", "/api/subscriptions", body, **sent)
    assert status == 201, made
    return dict(made)


async def happen(subject: Alerts, event_type: str = "lead.closed", **fields: Any) -> str:
    """Publish an event as the relay of whoever owns it does."""
    at = datetime.now(UTC).isoformat()
    body = golden(f"events/{event_type}")["occurred"] | {"at": at} | fields
    message = Message(str(uuid4()), event_type, body, "request-1")
    await subject.gateway.publish("alerts", "event.occurred", message)
    return message.id


async def got(outside: Receivers, name: str, count: int, seconds: float = 30) -> list[Got]:
    async def found() -> list[Got]:
        return outside.got[name]

    return await eventually(found, seconds, so=lambda all_: len(all_) >= count)


async def deliveries(subject: Alerts, made: dict[str, Any], **query: str) -> list[dict[str, Any]]:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    path = f"/api/subscriptions/{made['id']}/deliveries?{asked}"
    status, found = await subject.http("GET", path)
    assert status == 200, found
    return list(found["items"])


async def until_status(subject: Alerts, made: dict[str, Any], event_id: str, status: str) -> Any:
    async def find() -> Any:
        return next((e for e in await deliveries(subject, made) if e["id"] == event_id), None)

    return await eventually(find, 30, so=lambda one: one and one["status"] == status)


async def test_an_event_reaches_those_that_want_it_signed_and_only_with_the_scope_named(
    subject: Alerts, outside: Receivers
) -> None:
    crm = await subscribe(subject, outside.of("crm"), "lead.*", personal=True)
    count = await subscribe(subject, outside.of("count"), "lead.closed")
    await subscribe(subject, outside.of("other"), "consent.withdrawn")
    event_id = await happen(subject)
    (full,) = await got(outside, "crm", 1)
    (bare,) = await got(outside, "count", 1)
    assert (full.id, bare.id) == (event_id, event_id)
    assert full.is_signed(crm["secret"])
    assert bare.is_signed(count["secret"])
    assert not bare.is_signed(crm["secret"])
    assert full.body["data"]["by"] == "Ewa Lis"
    assert "by" not in bare.body["data"]
    assert full.body.keys() == {"type", "id", "timestamp", "data"}
    assert outside.got["other"] == []
    delivered = await until_status(subject, crm, event_id, "delivered")
    assert [each["status"] for each in delivered["attempts"]] == [200]
    assert "secret" not in str(await subject.http("GET", "/api/subscriptions"))
    assert (await subject.check())["ok"] is True


async def test_a_second_copy_of_a_message_delivers_nothing_more(
    subject: Alerts, outside: Receivers
) -> None:
    await subscribe(subject, outside.of("crm"))
    body = golden("events/lead.closed")["occurred"]
    message = Message(str(uuid4()), "lead.closed", body, "request-1")
    for _ in range(3):
        await subject.gateway.publish("alerts", "event.occurred", message)
    await happen(subject, "target.paused")
    await got(outside, "crm", 2)
    await subject.until_empty("occurred")
    await asyncio.sleep(1)
    ids = [each.id for each in outside.got["crm"]]
    assert ids.count(message.id) == 1
    assert await subject.scalar("SELECT count(*) FROM event") == 2


async def test_leads_and_consents_come_as_the_services_have_always_published_them(
    subject: Alerts, outside: Receivers, vhost: Vhost
) -> None:
    await subscribe(subject, outside.of("crm"), "lead.qualified", "consent.*", personal=True)
    bindings = await asyncio.to_thread(vhost.call, "GET", "bindings")
    bound = {
        (each["source"], each["routing_key"])
        for each in bindings
        if each["destination"] == "alerts.occurred"
    }
    assert bound >= {
        ("followups.events", "lead.qualified"), ("followups.events", "lead.updated"),
        ("consent.events", "consent.granted"), ("consent.events", "consent.withdrawn"),
        ("alerts", "event.occurred"),
    }  # fmt: skip


async def test_a_failed_attempt_is_tried_again_by_the_ledger_with_its_own_id(
    subject: Alerts, outside: Receivers
) -> None:
    made = await subscribe(subject, outside.of("crm"))
    outside.manners["crm"] = Manners(404)
    event_id = await happen(subject)
    waiting = await until_status(subject, made, event_id, "pending")
    await eventually(lambda: _asked(outside, "crm"), 15, so=lambda n: n >= 1)
    outside.manners["crm"] = Manners()
    (again,) = await got(outside, "crm", 1, 30)
    assert again.id == event_id
    delivered = await until_status(subject, made, event_id, "delivered")
    assert [each["status"] for each in delivered["attempts"]][-1] == 200
    assert delivered["attempts"][0]["status"] == 404
    assert waiting["next_attempt_at"] is not None
    row = await subject.row(event_id, f"subscription.{made['id']}")
    assert row.generation >= 1  # of the ledger, not of a queue's TTL


async def _asked(outside: Receivers, name: str) -> int:
    return outside.asked[name]


async def test_a_receiver_that_says_410_ends_it_and_its_owner_is_told(
    subject: Alerts, outside: Receivers
) -> None:
    made = await subscribe(subject, outside.of("crm"))
    outside.manners["crm"] = Manners(410)
    await happen(subject)
    path = f"/api/subscriptions/{made['id']}"
    shown = await eventually(partial(subject.http, "GET", path), so=lambda it: it[1]["paused"])
    assert shown[1]["paused"] == "gone"
    await eventually(partial(subject.sandbox.mails, OWNER), 20)
    await eventually(partial(_has_queue, subject, made), so=lambda has: not has)
    await happen(subject)
    await subject.until_empty("occurred")
    assert outside.asked["crm"] == 1
    assert await subject.scalar("SELECT count(*) FROM escalation") == 0
    # Resumed, it begins anew.
    outside.manners["crm"] = Manners()
    assert (await subject.http("PATCH", path, {"paused": False}))[1]["state"] == "active"
    event_id = await happen(subject)
    assert (await got(outside, "crm", 1))[0].id == event_id


async def _has_queue(subject: Alerts, made: dict[str, Any]) -> bool:
    name = f"alerts.subscription.{made['id']}"
    queues = await asyncio.to_thread(subject.vhost.call, "GET", "queues")
    return any(each["name"] == name for each in queues)


async def test_retry_after_is_honoured(subject: Alerts, outside: Receivers) -> None:
    await subscribe(subject, outside.of("crm"))
    outside.manners["crm"] = Manners(429, {"Retry-After": "3"})
    await happen(subject)
    await eventually(lambda: _asked(outside, "crm"), so=lambda n: n == 1)
    begin, outside.manners["crm"] = asyncio.get_running_loop().time(), Manners()
    await got(outside, "crm", 1)
    assert asyncio.get_running_loop().time() - begin > 2.5


async def test_both_secrets_sign_for_a_day_and_an_older_one_not_at_all(
    subject: Alerts, outside: Receivers
) -> None:
    made = await subscribe(subject, outside.of("crm"))
    path = f"/api/subscriptions/{made['id']}/secret"
    secrets = [made["secret"]]
    for _ in range(2):
        status, rotated = await subject.http("POST", path)
        assert status == 200
        secrets.append(rotated["secret"])
    await asyncio.sleep(5)  # replicas follow
    await happen(subject)
    (one,) = await got(outside, "crm", 1)
    assert [one.is_signed(secret) for secret in secrets] == [False, True, True]
    await subject.execute(
        "UPDATE subscription_secret SET ends_at = now() WHERE ends_at IS NOT NULL"
    )
    await asyncio.sleep(5)
    await happen(subject)
    _, two = await got(outside, "crm", 2)
    assert [two.is_signed(secret) for secret in secrets] == [False, False, True]


async def test_one_that_is_paused_gets_what_it_missed_by_a_replay_and_its_queues_go(
    subject: Alerts, outside: Receivers
) -> None:
    begin = datetime.now(UTC)
    made = await subscribe(subject, outside.of("crm"))
    await eventually(partial(_has_queue, subject, made))
    path = f"/api/subscriptions/{made['id']}"
    assert (await subject.http("PATCH", path, {"paused": True}))[1]["paused"] == "asked"
    await eventually(partial(_has_queue, subject, made), so=lambda has: not has)
    event_id = await happen(subject)
    await subject.until_empty("occurred")
    assert await subject.scalar("SELECT count(*) FROM delivery") == 0
    assert outside.asked["crm"] == 0
    assert (await subject.http("PATCH", path, {"paused": False}))[1]["paused"] is None
    missed = {"since": begin.isoformat(), "until": datetime.now(UTC).isoformat()}
    assert await subject.http("POST", f"{path}/replay", missed) == (202, {"matched": 1})
    assert [each.id for each in await got(outside, "crm", 1)] == [event_id]
    assert (await subject.http("DELETE", path))[0] == 200
    assert (await subject.http("GET", path))[0] == 404
    assert await subject.scalar("SELECT count(*) FROM subscription_secret") == 0


async def test_a_deleted_one_leaves_no_open_row(subject: Alerts, outside: Receivers) -> None:
    made = await subscribe(subject, outside.of("crm"))
    outside.manners["crm"] = Manners(500)
    event_id = await happen(subject)
    await until_status(subject, made, event_id, "pending")
    await eventually(lambda: _asked(outside, "crm"), so=lambda n: n >= 1)
    await asyncio.sleep(0.5)  # its outcome is recorded
    assert (await subject.http("DELETE", f"/api/subscriptions/{made['id']}"))[0] == 200
    assert (await subject.row(event_id, f"subscription.{made['id']}")).state == "discarded"
    assert (await subject.check())["ok"] is True


async def test_one_that_ends_before_it_has_a_queue_leaves_no_message_behind(
    subject: Alerts, outside: Receivers
) -> None:
    for change in ("DELETE", "PATCH"):
        made = await subscribe(subject, outside.of("crm"))
        path = f"/api/subscriptions/{made['id']}"
        await subject.http("POST", f"{path}/test")
        body = {"paused": True} if change == "PATCH" else None
        assert (await subject.http(change, path, body))[0] == 200
    work = "SELECT count(*) FROM outbox WHERE routing_key LIKE 'alerts.subscription.%'"
    waiting = partial(subject.scalar, work)
    await eventually(waiting, so=lambda count: count == 0)


async def test_one_that_cannot_start_or_takes_its_time_to_end_holds_up_no_other(
    subject: Alerts, outside: Receivers
) -> None:
    slow, broken = [await subscribe(subject, outside.of(name)) for name in ("slow", "broken")]
    outside.manners["slow"] = Manners(seconds=7.5)
    change = "UPDATE subscription_secret SET secret = :secret WHERE subscription::text = :id"
    await subject.execute(change, id=broken["id"], secret="whsec_!")
    await happen(subject)
    await eventually(lambda: _asked(outside, "slow"), so=lambda n: n == 1)
    paused = await subject.http("PATCH", f"/api/subscriptions/{slow['id']}", {"paused": True})
    assert paused[0] == 200
    well = await subscribe(subject, outside.of("well"))
    await eventually(partial(_has_queue, subject, well), 20)
    assert outside.got["slow"] == []  # still under way
    await happen(subject)
    await got(outside, "well", 1)
    await subject.execute(change, id=broken["id"], secret=broken["secret"])
    event_id = await happen(subject)
    ids = await eventually(lambda: _ids(outside, "broken"), 30, so=lambda found: event_id in found)
    assert len(ids) == 3
    outside.manners["well"] = Manners(seconds=2)
    await happen(subject)
    await eventually(lambda: _asked(outside, "well"), so=lambda n: n == 3)
    assert await subject.stop() == 0
    assert len(outside.got["well"]) == 3  # what was under way has ended


async def _ids(outside: Receivers, name: str) -> list[str]:
    return [each.id for each in outside.got[name]]


async def test_a_revoked_key_pauses_what_it_made_and_nothing_else(
    subject: Alerts, outside: Receivers
) -> None:
    theirs = await subscribe(subject, outside.of("a"), X_Operator="key:k7")
    ours = await subscribe(subject, outside.of("b"), X_Operator="key:k8")
    at = datetime.now(UTC).isoformat()
    message = Message(str(uuid4()), "key.revoked", {"at": at, "key": "k7"})
    await subject.gateway.publish("alerts", "event.occurred", message)
    path = f"/api/subscriptions/{theirs['id']}"
    await eventually(
        partial(subject.http, "GET", path), so=lambda it: it[1]["paused"] == "key_revoked"
    )
    other = (await subject.http("GET", f"/api/subscriptions/{ours['id']}"))[1]
    assert other["state"] == "active"
    # Whoever resumes it answers for it from then on.
    await subject.http("PATCH", path, {"paused": False}, X_Operator="key:k9")
    assert (await subject.http("GET", path))[1]["made_by"] == "key:k9"


async def test_a_replay_sends_what_is_kept_once_more_under_its_id(
    subject: Alerts, outside: Receivers
) -> None:
    begin = datetime.now(UTC)
    made = await subscribe(subject, outside.of("crm"), "lead.*")
    ids = [await happen(subject) for _ in range(3)]
    await happen(subject, "target.paused")  # which it does not want
    await got(outside, "crm", 3)
    await subject.until_empty("occurred")
    await subject.execute("DELETE FROM delivery WHERE alert_id = :id", id=ids[0])  # purged
    path = f"/api/subscriptions/{made['id']}/replay"
    body = {"since": begin.isoformat(), "until": datetime.now(UTC).isoformat()}
    assert await subject.http("POST", path, body) == (202, {"matched": 3})
    again = (await got(outside, "crm", 6))[3:]
    assert sorted(each.id for each in again) == sorted(ids)
    assert all(each.body["replayed"] for each in again)
    failed = body | {"only_failed": True}
    assert await subject.http("POST", path, failed) == (202, {"matched": 0})


async def test_a_replay_waits_for_what_is_due(subject: Alerts, outside: Receivers) -> None:
    begin = datetime.now(UTC)
    made = await subscribe(subject, outside.of("crm"))
    old = [await happen(subject) for _ in range(2)]
    await got(outside, "crm", 2)
    outside.manners["crm"] = Manners(seconds=1)
    new = [await happen(subject) for _ in range(6)]
    await subject.until_empty("occurred")
    body = {"since": begin.isoformat(), "until": datetime.now(UTC).isoformat()}
    body["until"] = (begin + timedelta(milliseconds=1)).isoformat()
    path = f"/api/subscriptions/{made['id']}/replay"
    await subject.execute("UPDATE event SET created_at = :at WHERE id::text = ANY(:ids)",
                          at=begin, ids=old)  # fmt: skip
    assert (await subject.http("POST", path, body))[1] == {"matched": 2}
    order = [each.id for each in (await got(outside, "crm", 10))[2:]]
    assert set(order[:6]) == set(new)
    assert set(order[6:]) == set(old)


async def test_there_are_at_most_so_many(alerts: StartAlerts) -> None:
    subject = await alerts()  # no private network
    good = {"url": "https://example.com/x", "events": ["*"], "owner_email": OWNER}
    for _ in range(routes.MOST):
        await subscribe(subject, "https://example.com/x")
    assert (await subject.http("POST", "/api/subscriptions", good))[0] == 409
    assert await subject.scalar("SELECT count(*) FROM subscription") == routes.MOST


async def test_a_key_without_the_scope_cannot_turn_personal_data_elsewhere(
    subject: Alerts, outside: Receivers
) -> None:
    made = await subscribe(subject, outside.of("crm"), personal=True)
    path = f"/api/subscriptions/{made['id']}"
    for change in ({"url": outside.of("thief")}, {"events": ["consent.*"]}):
        assert (await subject.http("PATCH", path, change))[0] == 403
    assert (await subject.http("PATCH", path, {"paused": True}))[0] == 200
    assert (await subject.http("PATCH", path, {"paused": False}))[0] == 403
    assert (await subject.http("PATCH", path, {"paused": False}, **PERSONAL))[0] == 200


async def test_what_happened_can_be_asked_for_in_the_order_of_commits(subject: Alerts) -> None:
    _, begin = await subject.http("GET", "/api/events")
    assert begin["items"] == []
    ids = [await happen(subject) for _ in range(5)]
    cursor, seen = begin["next_cursor"], list[str]()

    async def more() -> list[str]:
        nonlocal cursor
        _, page = await subject.http("GET", f"/api/events?after={cursor}")
        cursor = page["next_cursor"]
        seen.extend(each["id"] for each in page["items"])
        assert not any("by" in each["data"] for each in page["items"])
        return seen

    await eventually(more, so=lambda all_: len(all_) == 5)
    assert sorted(seen) == sorted(ids)
    after = f"/api/events?after={begin['next_cursor']}"
    named = (await subject.http("GET", after, **PERSONAL))[1]["items"]
    assert [each["data"]["by"] for each in named] == ["Ewa Lis"] * 5
    assert (await subject.http("GET", "/api/events?after=x"))[0] == 422


async def test_the_owner_is_warned_on_days_one_and_four_and_it_is_paused_after_five(
    subject: Alerts, outside: Receivers
) -> None:
    made = await subscribe(subject, outside.of("crm"))
    outside.manners["crm"] = Manners(500)
    for _ in range(5):
        await happen(subject)
    failing = "SELECT count(*) FROM incident WHERE target LIKE 'subscription.%'"
    await eventually(partial(subject.scalar, failing), 30)
    path = f"/api/subscriptions/{made['id']}"
    for days, mails in ((1, 1), (4, 2), (5, 3)):
        await subject.execute(
            "UPDATE incident SET since = now() - make_interval(days => :days)"
            " WHERE target LIKE 'subscription.%'", days=days,
        )  # fmt: skip
        await eventually(partial(_mails, subject), 20, so=partial(operator.le, mails))
    assert (await subject.http("GET", path))[1]["paused"] == "failing"
    # On-call hears about each once, too, and about nothing else.
    told = await subject.scalar("SELECT count(*) FROM delivery WHERE event_type = 'escalation'")
    assert told == 3


async def _mails(subject: Alerts) -> int:
    return len(await subject.sandbox.mails(OWNER))


async def test_a_failed_alert_and_a_shut_target_are_events_but_not_a_subscriptions(
    subject: Alerts, outside: Receivers
) -> None:
    await subscribe(subject, outside.of("watch"), "alert.failed", "target.*")
    await subscribe(subject, outside.of("dead"), "alert.failed")
    outside.manners["dead"] = Manners(500)
    await subject.sandbox.behave("slack", status=400)
    failed = await subject.accept()
    (one,) = await got(outside, "watch", 1)
    data = {name: value for name, value in one.body["data"].items() if name != "sequence"}
    about = {"target": "slack", "event_type": "slack_alert", "reason": "refused"}
    assert data == {"alert_id": failed, **about}
    await asyncio.sleep(3)
    assert len(outside.got["watch"]) == 1


async def test_a_persons_events_are_in_their_export_and_their_addresses_in_the_list(
    subject: Alerts, consent: Consent
) -> None:
    await happen(subject, "consent.withdrawn", email="ala@example.com")
    await happen(subject, "consent.withdrawn", email="ewa@example.com")
    await eventually(partial(subject.scalar, "SELECT count(*) FROM event"), so=lambda n: n == 2)
    exported = await consent.held("events", "ala@example.com")
    assert [each["data"]["email"] for each in exported] == ["ala@example.com"]
    assert {"ala@example.com", "ewa@example.com"} <= set(await consent.addresses())


async def test_an_erased_person_vanishes_from_what_is_kept(
    subject: Alerts, outside: Receivers, consent: Consent
) -> None:
    await subscribe(subject, outside.of("crm"), "lead.*", personal=True)
    await subscribe(subject, outside.of("bare"), "lead.*")
    theirs = await happen(subject, "lead.qualified", email="ala@example.com")
    await happen(subject, "lead.qualified", email="ewa@example.com", conversation_id=str(uuid4()),
                 phone=None, name="Ewa")  # fmt: skip
    named = await got(outside, "crm", 2)
    (person,) = {each.body["data"]["person"] for each in named if each.id == theirs}
    await consent.erased("ala@example.com")
    told = (await got(outside, "crm", 3))[-1]
    assert (told.body["type"], told.body["data"]["persons"]) == ("person.erased", [person])
    assert "ala@" not in told.raw
    assert len(outside.got["bare"]) == 2
    left = await subject.scalar(
        "SELECT count(*) FROM event WHERE data::text LIKE '%ala@example.com%'"
    )
    rows = await subject.scalar(
        "SELECT count(*) FROM delivery WHERE payload::text LIKE '%ala@example.com%'"
    )
    assert (left, rows) == (0, 0)
    # What was on its way is not kept either (protocol C, step 6).
    late = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    await happen(subject, "lead.qualified", email="ala@example.com", at=late)
    await subject.until_empty("occurred")
    assert len(outside.got["crm"]) == 3


async def test_an_event_whose_transaction_is_open_does_not_outlive_an_erasure(
    subject: Alerts, consent: Consent
) -> None:
    await happen(subject, "lead.qualified", email="ala@example.com")
    await eventually(partial(subject.scalar, "SELECT count(*) FROM event"))
    async with subject.engine.begin() as tx:
        await tx.execute(text("SELECT pg_advisory_xact_lock(hashtext('alerts.event'))"))
        await tx.execute(text(
            "INSERT INTO event (id, type, data, subjects, at)"
            " SELECT gen_random_uuid(), type, data, subjects, at FROM event"
        ))  # fmt: skip
        erasing = asyncio.create_task(consent.erased("ala@example.com"))
        await asyncio.sleep(KEPT_SECONDS + 1)
    await erasing
    left = "SELECT count(*) FROM event WHERE data::text LIKE '%ala@example.com%'"
    assert await subject.scalar(left) == 0
