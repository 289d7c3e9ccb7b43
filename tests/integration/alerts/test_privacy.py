"""What alerts hold on a data subject is exported and erased as consent orders.

A dead letter of intake holds an accepted alert, too.
"""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
import sqlalchemy as sa

from libs.common.messaging.topology import dead_name
from services.alerts.topology import INTAKE_QUEUE
from tests.integration.alerts.conftest import (
    ANNA,
    ERASURE,
    Alerts,
    Consent,
    StartAlerts,
    accepted,
)
from tests.integration.alerts.test_dead_letters import dead_letters, move
from tests.support.brokers import Vhost, leaderless
from tests.support.consumers import until
from tests.support.eventually import eventually

ONCE = {"address": ANNA, "purpose": "marketing", "reference": str(uuid.uuid4())}


async def words(subject: Alerts) -> str:
    """Return everything in the schema as text."""
    parts = [
        await subject.scalar(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t")
        for table in ("delivery", "attempt", "escalation", "outbox")
    ]
    return " ".join(parts)


async def test_a_delivered_alert_is_emptied_and_still_counted(
    consent: Consent, subject: Alerts
) -> None:
    hers = await subject.accept(
        payload={"text": "nowy lead", "email": "Anna@Example.com", "name": "Anna"},
        dedup_key=f"lead-{ANNA}",
    )
    others = await subject.accept(payload={"text": f"do joanna@example.com, nie {ANNA}.pl"})
    for alert_id in (hers, others):
        await subject.until(alert_id, "delivered")
    before = await subject.check()
    assert [each["id"] for each in await consent.held()] == [hers]
    tried = await consent.held("attempts")
    assert [(each["alert_id"], each["outcome"]) for each in tried] == [(hers, "delivered")]
    for _ in range(2):
        await consent.erased()
    assert consent.receipts[0]["erasure_id"] == ERASURE
    assert consent.receipts[0]["service"] == "alerts"
    assert await consent.held() == []
    row = await subject.row(hers)
    assert (row.state, row.payload, row.dedup_key) == ("delivered", None, None)
    assert (await subject.row(others)).payload is not None
    assert await subject.check() == before
    assert "Anna" not in await words(subject)


async def test_the_link_in_a_mail_to_staff_is_shown_to_nobody(
    consent: Consent, subject: Alerts
) -> None:
    payload = {"to": ANNA, "subject": "s", "text": "https://x/console/invitation/secret"}
    alert_id = await subject.accept("staff.mail", payload=payload)
    await subject.until(alert_id, "delivered", "email")
    (mail,) = await subject.sandbox.mails(ANNA)
    assert "invitation/secret" in mail["Text"]
    (held,) = await consent.held()
    assert (held["id"], held["payload"]) == (alert_id, None)
    await subject.execute("UPDATE delivery SET state = 'failed', reason = 'exhausted'")
    _, page = await subject.http("GET", "/api/dlq/failed")
    assert [(one["id"], one["payload"]) for one in page["items"]] == [(alert_id, None)]


async def test_a_large_export_is_paged_and_complete(consent: Consent, subject: Alerts) -> None:
    await subject.failed(100, f"{ANNA} {'x' * 200_000}")  # 20 MB; RabbitMQ takes 16
    held = await consent.held()
    assert len(held) == len({each["id"] for each in held}) == 100


async def test_a_pending_alert_of_an_erased_subject_is_discarded(
    consent: Consent, subject: Alerts
) -> None:
    await subject.sandbox.behave("slack", status=500)
    waiting = await subject.accept(payload={"text": f"dzwoń do {ANNA}"})
    consent.answer = None  # so this one waits, too
    once = await subject.accept(
        "followup", payload={"to": ANNA, "subject": "s", "text": "t"}, target="email", once=ONCE
    )
    await until_tried(subject, waiting, "slack")
    await until_tried(subject, once, "email")
    await consent.erased()
    await subject.sandbox.heal()
    for alert_id, target in ((waiting, "slack"), (once, "email")):
        row = await subject.row(alert_id, target)
        assert (row.state, row.reason, row.payload) == ("discarded", "erased", None)
    assert (await subject.row(once, "email")).once_address == "erased"
    assert ANNA not in await words(subject)

    # The messages return from .retry and are acknowledged.
    await subject.until_empty("slack", "slack.retry", "email", "email.retry")
    assert await subject.sandbox.received("slack") == []
    assert await subject.sandbox.mails() == []
    assert (await subject.check())["discarded"] == 2


EWA = {"name": "Ewa", "email": "ewa@example.com", "text": f"Nowy lead; mąż to {ANNA}, {ANNA}!"}


async def test_an_alert_about_somebody_else_loses_only_the_mention(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts(slack={"retry_delays": [3.0, 3.0]})
    sent = await subject.accept(payload=EWA)
    await subject.until(sent, "delivered")
    await subject.sandbox.reset()
    await subject.sandbox.behave("slack", status=500)
    waiting = await subject.accept(payload=EWA)
    hers = await subject.accept(payload=EWA | {"email": ANNA, "text": "ewa@example.com"})
    keyed = await subject.accept(payload=EWA, dedup_key=ANNA)
    for alert_id in (waiting, hers, keyed):
        await until_tried(subject, alert_id, "slack")
    assert {each["id"] for each in await consent.held()} == {hers, keyed}
    await consent.erased()
    for alert_id in (hers, keyed):
        row = await subject.row(alert_id)
        assert (row.state, row.reason, row.payload) == ("discarded", "erased", None)
    left = EWA | {"text": "Nowy lead; mąż to […], […]"}
    for alert_id in (sent, waiting):
        row = await subject.row(alert_id)
        assert (row.payload, row.reason != "erased", len(row.subjects)) == (left, True, 1)
    assert ANNA not in await words(subject)
    await subject.sandbox.heal()
    await subject.until(waiting, "delivered")
    (message,) = await subject.sandbox.received("slack")
    assert "mąż to […]" in str(message["body"])
    assert len(await consent.held(email="ewa@example.com")) == 2


async def test_a_number_that_somebody_else_mentions_is_struck_out(
    consent: Consent, subject: Alerts
) -> None:
    spoken = EWA | {"text": "mąż: 601 234 567, 80 m2", "609111222": 601234567}
    alert_id = await subject.accept(payload=spoken)
    await subject.until(alert_id, "delivered")
    await consent.erased(None, phone="+48601234567")
    left = EWA | {"text": "mąż: […], 80 m2", "609111222": "[…]"}
    assert (await subject.row(alert_id)).payload == left
    await consent.erased(None, phone="+48609111222")
    assert "609111222" not in (await subject.row(alert_id)).payload


async def test_an_alert_about_somebody_else_in_intake_loses_only_the_mention(
    consent: Consent, subject: Alerts
) -> None:
    held_since = datetime.now(UTC).isoformat()
    await consent.erased()
    late = await subject.accept(payload=EWA, accepted_at=held_since)
    row = await subject.until(late, "delivered")
    assert (row.payload, len(row.subjects)) == (EWA | {"text": "Nowy lead; mąż to […], […]"}, 1)


async def until_tried(subject: Alerts, alert_id: str, target: str) -> None:
    await eventually(
        lambda: subject.row(alert_id, target),
        so=lambda row: row is not None and row.attempt and row.state == "pending",
    )


async def test_an_erasure_waits_for_an_alert_being_sent(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts(slack={"timeout": 4.0, "retry_delays": [4.5, 4.5]})
    await subject.sandbox.behave("slack", delay_seconds=1.5)
    alert_id = await subject.accept(payload={"text": ANNA})
    await subject.until(alert_id, "sending")
    await consent.erased()
    row = await subject.row(alert_id)
    assert (row.state, row.payload) == ("delivered", None)


async def test_an_alert_in_intake_is_erased_too(consent: Consent, subject: Alerts) -> None:
    async with subject.engine.begin() as tx:
        await tx.execute(sa.text("INSERT INTO ledger_total (target) VALUES ('slack')"))
        await subject.accept(payload={"text": ANNA})  # its row waits for ours, which is uncommitted

        async def in_flight() -> bool:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return await subject.depth("alerts.intake") == 0 and bool(await subject.scalar(waits))

        await eventually(in_flight)
        await consent.order()
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await eventually(lambda: subject.scalar(waits))
    await until(lambda: bool(consent.receipts), 30)
    assert await subject.scalar("SELECT count(*) FROM delivery") == 1
    assert ANNA not in await words(subject)


@pytest.mark.parametrize(("ahead", "kept"), [(4, False), (7, True)])
async def test_an_alert_from_before_an_erasure_is_erased_although_its_gateway_s_clock_is_ahead(
    consent: Consent, ahead: float, subject: Alerts, *, kept: bool
) -> None:
    await consent.erased()
    erased = await subject.scalar("SELECT max(erased_at) FROM erased_subject")
    at = erased + timedelta(seconds=ahead)
    alert_id = await subject.accept(payload={"text": ANNA}, accepted_at=at.isoformat())
    row = await eventually(lambda: subject.row(alert_id))
    assert (row.reason == "erased", row.payload is not None) == (not kept, kept)


async def test_an_erased_alert_cannot_be_retried(consent: Consent, subject: Alerts) -> None:
    await subject.sandbox.behave("slack", status=400)
    alert_id = await subject.accept(payload={"text": ANNA})
    await subject.until(alert_id, "failed")
    await consent.erased()
    answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer == (200, {"matched": 1, "requeued": 0, "skipped": 1, "without_payload": 1})
    listed = (await subject.http("GET", "/api/dlq/failed"))[1]["items"]
    assert [(each["id"], each["payload"]) for each in listed] == [(alert_id, None)]


async def test_a_lead_is_found_by_its_conversation_and_phone(
    consent: Consent, subject: Alerts
) -> None:
    conversation, number = str(uuid.uuid4()), "+48601234567"
    lead = {"text": "a lead", "conversation_id": conversation, "phone": number, "email": None}
    theirs = [
        await subject.accept(payload=lead),
        await subject.accept(payload={"text": "dzwoń: 601 234 567"}),
    ]
    spouse = await subject.accept(payload={"phone": number, "email": "jan@example.com"})
    for alert_id in (*theirs, spouse):
        await subject.until(alert_id, "delivered")
    assert await consent.held() == []
    trace: dict[str, Any] = {"conversations": [conversation], "phones": [number]}
    assert {each["id"] for each in await consent.held(**trace)} == set(theirs)
    await consent.erased(**trace)
    assert await consent.held(**trace) == []
    assert (await subject.row(spouse)).payload is not None
    # A subject that asks by the number has proven it.
    assert [each["id"] for each in await consent.held(email=None, phone=number)] == [spouse]
    await consent.erased(None, phone=number)
    assert number not in await words(subject)


async def test_an_alert_in_intake_during_an_erasure_is_stored_empty(
    consent: Consent, subject: Alerts
) -> None:
    held_since = datetime.now(UTC).isoformat()
    conversation = str(uuid.uuid4())
    await consent.erased(conversations=[conversation])
    payloads = ({"text": f"lead {ANNA}"}, {"text": "lead", "conversation_id": conversation})
    late = [await subject.accept(payload=each, accepted_at=held_since) for each in payloads]
    mail = {"to": ANNA, "subject": "s", "text": "t"}
    once = await subject.accept(
        "followup", payload=mail, target="email", once=ONCE, accepted_at=held_since
    )
    later = (datetime.now(UTC) + timedelta(seconds=10)).isoformat()
    new = await subject.accept(payload={"text": f"she came back: {ANNA}"}, accepted_at=later)
    await subject.until(new, "delivered")
    for alert_id, target in (*((each, "slack") for each in late), (once, "email")):
        await subject.until(
            alert_id, "discarded", target, reason="erased", payload=None, subjects=[]
        )
    assert [each["id"] for each in await consent.held()] == [new]
    assert await subject.scalar("SELECT count(*) FROM escalation") == 0
    assert (await subject.check())["discarded"] == 3


async def test_an_erasure_waits_until_intake_is_known_to_be_empty(
    consent: Consent, vhost: Vhost, subject: Alerts
) -> None:
    with leaderless(vhost, "alerts.intake.retry"):
        await consent.order()
        await until(lambda: subject.log.read_text().count('"reason": "intake"') > 2)
        assert consent.receipts == []
    await until(lambda: bool(consent.receipts))


DEAD = dead_name(INTAKE_QUEUE)
CONVERSATION = str(uuid4())


async def publish(subject: Alerts, queue: str, type_: str, *bodies: bytes) -> None:
    async with await aio_pika.connect(subject.vhost.admin_url()) as connection:
        channel = await connection.channel()
        for body in bodies:
            message = aio_pika.Message(body, type=type_, message_id=str(uuid4()))
            await channel.default_exchange.publish(message, queue)


async def dead(subject: Alerts, count: int) -> None:
    await eventually(lambda: subject.depth(DEAD), so=lambda found: found == count)


HERS = {
    "an alert": json.dumps(
        accepted("slack_alert", "x", payload={"from": "ANNA@example.com"})
    ).encode(),
    "cut": f'{{"id": "x", "payload": {{"text": "dzwoń do {ANNA}'.encode(),
    "of her conversation": f"conversation_id: {CONVERSATION}, no JSON".encode(),
    "in Latin-2": f"żółw {ANNA}".encode("iso8859-2"),
}


@pytest.mark.parametrize("hers", HERS.values(), ids=HERS)
async def test_an_unreadable_alert_is_exported_and_erased(
    consent: Consent, hers: bytes, subject: Alerts
) -> None:
    others = accepted("slack_alert", payload={"text": f"do jo{ANNA}"})
    unreadable = json.dumps(others | {"severity": "unheard of"}).encode()
    await publish(subject, INTAKE_QUEUE, "alert.accepted", unreadable, hers)

    await dead(subject, 2)
    about: dict[str, Any] = {"conversations": [CONVERSATION]}
    (shown,) = await consent.held("dead_letters", **about)
    assert shown["queue"] == DEAD
    assert shown["reason"]
    assert shown["body"] == hers.decode(errors="replace")
    await dead(subject, 2)  # reading removes nothing

    await consent.erased(**about)
    assert await consent.held("dead_letters", **about) == []
    ((_, left),) = await dead_letters(subject, DEAD)
    assert left["id"] == others["id"]
    await publish(subject, DEAD, "alert.accepted", json.dumps(others).encode())
    await move(subject, DEAD)
    await subject.until(others["id"], "delivered")


async def test_the_other_alerts_of_an_erased_batch_are_accepted(
    consent: Consent, subject: Alerts
) -> None:
    hers, others = (accepted("slack_alert", payload={"text": each}) for each in (ANNA, "x@y.pl"))
    batch = json.dumps({"alerts": [hers, others]}).encode()
    await publish(subject, DEAD, "alerts.accepted", batch)
    (shown,) = await consent.held("dead_letters")
    assert json.loads(shown["body"]) == hers
    await consent.erased()
    await subject.until(others["id"], "delivered")
    assert await subject.row(hers["id"]) is None
    assert await subject.depth(DEAD) == 0


async def test_a_dead_letter_about_somebody_else_is_accepted_without_the_mention(
    consent: Consent, subject: Alerts
) -> None:
    ewas = accepted("slack_alert", payload={"text": ANNA, "email": "ewa@example.com"})
    batch = json.dumps({"alerts": [ewas]}).encode()
    await publish(subject, DEAD, "alerts.accepted", batch)
    assert await consent.held("dead_letters") == []
    await consent.erased()
    await subject.until(
        ewas["id"], "delivered", payload={"text": "[…]", "email": "ewa@example.com"}
    )
    assert await subject.depth(DEAD) == 0


async def test_a_dead_letter_that_was_set_aside_is_erased_too(
    consent: Consent, subject: Alerts
) -> None:
    await publish(subject, DEAD, "alert.accepted", HERS["cut"])
    await move(subject, DEAD, f"{INTAKE_QUEUE}.set-aside")
    (shown,) = await consent.held("dead_letters")
    assert shown["queue"] == f"{INTAKE_QUEUE}.set-aside"
    await consent.erased()
    assert await subject.depth(f"{INTAKE_QUEUE}.set-aside") == 0


async def test_a_kill_during_an_erasure_loses_no_other_dead_letter(
    consent: Consent, subject: Alerts
) -> None:
    many = [json.dumps(accepted("slack_alert", "no uuid")).encode() for _ in range(300)]
    await publish(subject, DEAD, "alert.accepted", *many, HERS["cut"])
    await consent.order()

    await eventually(lambda: subject.depth(DEAD), so=lambda found: found < 301)  # it is looking
    await asyncio.to_thread(subject.kill9)
    await subject.start()
    await until(lambda: bool(consent.receipts))
    await dead(subject, 300)
