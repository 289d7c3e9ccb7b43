"""Protocol B on real servers: a marketing mail is sent at most once, and only with a permit."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from sqlalchemy import make_url

from libs.common.messaging.broker import Message
from tests.integration.alerts.conftest import Alerts, Consent, StartAlerts
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.proxy import Proxy
from tests.support.servers import frozen

Outcomes = list[dict[str, Any]]
ADDRESS = "ala@example.com"
LINK = f"https://ostoja.example.com/unsubscribe?token={'x' * 150}"


async def follow_up(
    subject: Alerts,
    alert_id: str | None = None,
    *,
    target: str | None = "email",
    not_after: datetime | None = None,
    headers: Any = None,
) -> str:
    alert_id = alert_id or str(uuid.uuid4())
    return await subject.accept(
        "followup",
        alert_id,
        payload={
            "to": ADDRESS,
            "subject": "Wracamy do naszej rozmowy o wykończeniu łazienki",
            "text": "Dzień dobry,\n.zaczyna się od kropki\n..i od dwóch\n",
            "html": "<p>Dzień dobry</p>",
            "headers": headers
            or {
                "Message-ID": f"<{alert_id}@ostoja.example.com>",
                "List-Unsubscribe": f"<{LINK}>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            },
        },
        target=target,
        source="followups",
        once={
            "address": ADDRESS,
            "purpose": "marketing",
            "reference": alert_id,
            "not_after": not_after and not_after.isoformat(),
        },
    )


async def source(subject: Alerts, mail_id: str) -> str:
    url = f"{subject.sandbox.mail_url}/api/v1/message/{mail_id}/raw"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return (await answer.read()).decode("ascii")


async def ends(outcomes: Outcomes, count: int = 1) -> list[tuple[str, str | None]]:
    await until(lambda: len(outcomes) >= count)
    return [(one["outcome"], one["reason"]) for one in outcomes]


async def returned(consent: Consent, *attempts: int) -> None:
    await until(lambda: sorted(one["attempt"] for one in consent.returned) == sorted(attempts))


@pytest.mark.promise("P3")
async def test_a_mail_past_its_window_returns_to_its_sender(
    consent: Consent, outcomes: Outcomes, subject: Alerts
) -> None:
    await subject.sandbox.behave("email", status=451)
    closes = datetime.now(UTC) + timedelta(seconds=4)
    alert_id = await follow_up(subject, not_after=closes)
    await eventually(
        lambda: subject.row(alert_id, "email"), so=lambda row: row and row.last_attempt_at
    )
    row = await subject.until(alert_id, "discarded", "email")
    await subject.sandbox.heal()
    assert row.reason == "window_over"
    assert row.finished_at >= closes
    assert await ends(outcomes) == [("too_late", "window_over")]
    assert await subject.sandbox.mails() == []
    assert len(consent.asked) == row.attempt - 1  # none asked for after the window
    open_again = await follow_up(subject, not_after=closes + timedelta(hours=1))
    await subject.until(open_again, "delivered", "email")
    assert [mail["MessageID"] for mail in await subject.sandbox.mails()] == [
        f"{open_again}@ostoja.example.com"
    ]
    assert (await subject.check())["ok"]


@pytest.mark.promise("P3")
async def test_no_terminator_is_written_after_the_window(
    consent: Consent, outcomes: Outcomes, subject: Alerts
) -> None:
    consent.answers_after = 0.8  # asked for in time, granted after the window
    alert_id = await follow_up(subject, not_after=datetime.now(UTC) + timedelta(seconds=0.6))
    await subject.until(alert_id, "discarded", "email")
    assert await ends(outcomes) == [("too_late", "window_over")]
    assert await subject.sandbox.mails() == []


@pytest.mark.promise("P3")
@pytest.mark.quick
async def test_a_granted_mail_is_sent_once_and_its_permit_returned(
    consent: Consent, outcomes: Outcomes, subject: Alerts
) -> None:
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "delivered", "email", attempt=1)
    (mail,) = await subject.sandbox.mails()
    assert mail["MessageID"] == f"{alert_id}@ostoja.example.com"
    assert [to["Address"] for to in mail["To"]] == [ADDRESS]
    assert mail["Subject"] == "Wracamy do naszej rozmowy o wykończeniu łazienki"
    lines = mail["Text"].replace("\r\n", "\n").split("\n")
    assert lines[:3] == ["Dzień dobry,", ".zaczyna się od kropki", "..i od dwóch"]
    raw = await source(subject, mail["ID"])
    assert f"List-Unsubscribe: <{LINK}>\r\n" in raw  # not folded: a folded link is broken
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in raw
    assert consent.asked == [
        {"message": alert_id, "attempt": 1, "address": ADDRESS, "purpose": "marketing"}
    ]
    await returned(consent, 1)
    assert await ends(outcomes) == [("sent", "ok")]
    assert outcomes[0]["reference"] == alert_id


@pytest.mark.promise("P3")
async def test_a_late_duplicate_finds_the_row_of_its_mail_after_a_cleanup(
    consent: Consent, subject: Alerts
) -> None:
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "delivered", "email")
    cleaned = await subject.http("POST", "/api/dlq/cleanup", {"older_than_hours": 0})
    assert cleaned == (200, {"deleted": 0})
    await follow_up(subject, alert_id)
    await subject.until(
        await follow_up(subject), "delivered", "email"
    )  # it came after the duplicate
    assert (await subject.row(alert_id, "email")).attempt == 1
    assert len(await subject.sandbox.mails()) == 2


@pytest.mark.promise("P3")
async def test_a_mail_without_a_permit_reply_waits_and_uses_no_attempt(
    alerts: StartAlerts, consent: Consent, outcomes: Outcomes
) -> None:
    subject = await alerts(email={"retry_delays": [2.5]})
    consent.answer = None
    alert_id = await follow_up(subject)
    # more often than it has attempts
    await until(lambda: len(consent.asked) >= 3, 30)
    assert (await subject.row(alert_id, "email")).state in {"pending", "claimed"}
    assert await subject.sandbox.mails() == []
    consent.answer = "granted"
    row = await subject.until(alert_id, "delivered", "email", attempts=1)
    assert [one["attempt"] for one in consent.asked] == list(range(1, row.attempt + 1))
    await returned(consent, *range(1, row.attempt + 1))
    assert len(await subject.sandbox.mails()) == 1
    assert await ends(outcomes) == [("sent", "ok")]


@pytest.mark.promise("P3")
@pytest.mark.parametrize(
    ("answer", "said", "outcome", "reason"),
    [
        ("denied", None, "cancelled", "withdrawn"),
        ("closed", "deferred", "too_late", "deferred"),  # the person pauses: later, perhaps
        ("closed", "no_consent", "cancelled", "no_consent"),
        (None, None, "cancelled", "no_permit"),
    ],
)
async def test_a_mail_without_a_permit_is_not_sent_and_returns_to_its_sender(
    alerts: StartAlerts, consent: Consent, outcomes: Outcomes,
    answer: str | None, said: str | None, outcome: str, reason: str,
) -> None:  # fmt: skip
    subject = await alerts(email={"permit_patience": 0.5})
    consent.answer, consent.reason = answer, said
    alert_id = await follow_up(subject)
    assert (await subject.until(alert_id, "discarded", "email")).reason == reason
    assert await ends(outcomes) == [(outcome, reason)]
    escalated = [reason] if reason == "no_permit" else None  # no other is a failure
    assert await subject.scalar("SELECT array_agg(reason) FROM escalation") == escalated
    if reason in {"withdrawn", "deferred"}:
        await returned(consent, 1)
    assert await subject.depth("alerts.email.dead") == 0
    assert await subject.sandbox.mails() == []
    assert (await subject.check())["ok"]


@pytest.mark.promise("P3")
async def test_a_mail_past_the_deadline_is_not_terminated_and_sent_later(
    alerts: StartAlerts, consent: Consent
) -> None:
    # The second attempt must be in time on a slow machine, too.
    email = {"dot_deadline": 2, "timeout": 5, "retry_delays": [7, 7]}
    subject = await alerts(email=email)
    await subject.sandbox.behave("email", stage="mail", delay_seconds=2.5)
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "pending", "email", reason="too_late")
    await returned(consent, 1)
    assert await subject.sandbox.received("email") == []
    await subject.sandbox.behave("email", status=200)
    assert (await subject.until(alert_id, "delivered", "email")).attempt == 2
    assert len(await subject.sandbox.mails()) == 1


@pytest.mark.promise("P3")
async def test_a_response_lost_after_the_terminator_leaves_a_doubt_for_an_operator(
    consent: Consent, outcomes: Outcomes, subject: Alerts
) -> None:
    await subject.sandbox.behave("email", close=True, accepted=True)
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "in_doubt", "email")
    assert await ends(outcomes) == [("in_doubt", "connection")]
    assert consent.returned == []  # the server may still accept it
    assert await subject.scalar("SELECT count(*) FROM escalation") == 1
    await subject.sandbox.behave("email", status=200)

    duplicate = {"alert_id": alert_id, "target": "email", "generation": 0}
    message = Message(str(uuid.uuid4()), "alert.work", duplicate)
    await subject.gateway.publish("alerts", "alerts.email", message)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer == {"matched": 1, "requeued": 0, "skipped": 1}
    _, listed = await subject.http("GET", "/api/dlq/in-doubt")
    assert [one["id"] for one in listed["items"]] == [alert_id]
    terms = await subject.check()
    assert (terms["in_doubt"], terms["ok"]) == (1, True)

    body = {"id": alert_id, "outcome": "delivered", "reason": "the recipient has it"}
    assert (await subject.http("POST", "/api/dlq/resolve", body))[0] == 200
    assert await ends(outcomes, 2) == [("in_doubt", "connection"), ("sent", "manual")]
    await returned(consent, 1)  # a withdrawal no longer waits for it
    assert (await subject.http("POST", "/api/dlq/resolve", body))[0] == 404
    assert len(await subject.sandbox.mails()) == 1


@pytest.mark.promise("P3")
async def test_a_doubt_resolved_as_resend_asks_for_a_new_permit(
    consent: Consent, subject: Alerts
) -> None:
    await subject.sandbox.behave("email", close=True)
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "in_doubt", "email")
    await subject.sandbox.behave("email", status=200)
    body = {"id": alert_id, "outcome": "resend", "reason": "the recipient has nothing"}
    assert (await subject.http("POST", "/api/dlq/resolve", body))[0] == 200
    await subject.until(alert_id, "delivered", "email")
    assert [one["attempt"] for one in consent.asked] == [1, 2]
    await returned(consent, 1, 2)
    assert len(await subject.sandbox.mails()) == 1


@pytest.mark.promise("P3")
@pytest.mark.parametrize("change", ["target = 'left'", "payload = NULL"])
async def test_a_doubt_that_cannot_be_resent_stays_in_doubt(
    consent: Consent, change: str, subject: Alerts
) -> None:
    await subject.sandbox.behave("email", close=True)
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "in_doubt", "email")
    await subject.execute("DELETE FROM attempt")
    await subject.execute(f"UPDATE delivery SET {change}")
    body = {"id": alert_id, "outcome": "resend", "reason": "the recipient has nothing"}
    assert (await subject.http("POST", "/api/dlq/resolve", body))[0] == 409
    assert await subject.scalar("SELECT state FROM delivery") == "in_doubt"
    assert consent.returned == []
    body["outcome"] = "discarded"
    assert (await subject.http("POST", "/api/dlq/resolve", body))[0] == 200
    await returned(consent, 1)


@pytest.mark.promise("P3")
@pytest.mark.quick
@pytest.mark.parametrize("reconciler", ["0.5", "3600"])  # by the reconciler, and by its own message
async def test_a_worker_killed_after_the_terminator_leaves_a_doubt(
    alerts: StartAlerts, consent: Consent, outcomes: Outcomes, reconciler: str
) -> None:
    options = {"timeout": 4.0, "retry_delays": [6.0]}
    subject = await alerts(email=options, ALERTS_RECONCILE_SECONDS=reconciler)
    await subject.sandbox.behave("email", delay_seconds=3)
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "sending", "email")
    await asyncio.sleep(0.5)  # the terminator is out by now, or the mail below would be missing
    subject.kill9()
    await subject.sandbox.behave("email", status=200)
    await subject.start()
    await subject.until(alert_id, "in_doubt", "email", reason="crashed", attempt=1)
    assert await ends(outcomes) == [("in_doubt", "crashed")]
    assert consent.returned == []
    assert len(await subject.sandbox.mails()) <= 1
    assert len(consent.asked) == 1


@pytest.mark.promise("P3")
async def test_a_mail_accepted_while_the_database_was_away_is_delivered(
    consent: Consent, outcomes: Outcomes, subject: Alerts
) -> None:
    await subject.stop()
    url = make_url(str(subject.database))
    async with Proxy(url.port or 0) as database:
        through = url.set(port=database.port).render_as_string(hide_password=False)
        subject.environment["DATABASE_URL"] = through
        await subject.start()
        await subject.sandbox.behave("email", delay_seconds=0.7)
        alert_id = await follow_up(subject)
        await subject.until(alert_id, "sending", "email")
        await database.refuse()
        await asyncio.sleep(4)  # longer than its lease
        assert (await subject.row(alert_id, "email")).state == "sending"
        await database.resume()
        await subject.until(alert_id, "delivered", "email")
        assert await ends(outcomes) == [("sent", "ok")]
        await returned(consent, 1)
        assert len(await subject.sandbox.mails()) == 1
        await subject.stop()


async def metric(subject: Alerts, name: str) -> float:
    lines = (await subject.metrics()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.promise("P4")
async def test_permit_requests_are_bounded_by_the_smtp_concurrency(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts(email={"concurrency": 3, "ask_timeout": 4, "retry_delays": [6]})
    consent.answers_after = 2
    ids = [await follow_up(subject) for _ in range(7)]
    await until(lambda: len(consent.asked) == 3)
    await asyncio.sleep(0.7)  # time for a fourth, which must not come
    assert len(consent.asked) == 3
    consent.answers_after = 0
    for alert_id in ids:
        await subject.until(alert_id, "delivered", "email", seconds=30)
    assert len(await subject.sandbox.mails()) == 7


@pytest.mark.promise("P4")
async def test_a_lagging_process_asks_for_no_permit(alerts: StartAlerts, consent: Consent) -> None:
    subject = await alerts(email={"margin": 1.5, "retry_delays": [3.5]})
    with frozen(subject.process.pid):
        await asyncio.sleep(1.2)  # above half the margin
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "pending", "email", reason="no_permit")
    assert consent.asked == []
    assert await metric(subject, 'alerts_permits_total{answer="none"}') >= 1
    row = await subject.until(alert_id, "delivered", "email")  # five seconds later
    assert row.attempts == 1
    assert len(consent.asked) == 1
    await returned(consent, *range(1, row.attempt + 1))


@pytest.mark.promise("P4")
async def test_a_mail_sent_past_its_permit_is_in_doubt_counted_and_escalated(
    alerts: StartAlerts, consent: Consent, outcomes: Outcomes
) -> None:
    """The terminator was in time, but SMTP's reply was late, as after a freeze or a clock jump."""
    mail = {"ask_timeout": 3, "timeout": 3, "margin": 0.9, "permit": 4, "dot_deadline": 3.9}
    subject = await alerts(email=mail | {"retry_delays": [7]})
    consent.answers_after = 2
    await subject.sandbox.behave("email", delay_seconds=2.5)  # of the 3 s that a send may take
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "in_doubt", "email", reason="overrun")
    assert await ends(outcomes) == [("in_doubt", "overrun")]
    assert consent.returned == []
    assert await metric(subject, "alerts_permit_overrun_total") == 1
    assert await subject.scalar("SELECT count(*) FROM escalation") == 1
    assert '"permit.overrun"' in subject.log.read_text()
    assert len(await subject.sandbox.mails()) == 1
