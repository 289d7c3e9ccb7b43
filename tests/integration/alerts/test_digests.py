"""P1: operators are notified of failures and open incidents, even after mail was down."""

import uuid
from functools import partial
from typing import Any

import pytest

from libs.common.messaging.broker import Message
from tests.integration.alerts.conftest import FAILED, ONCE, Alerts, StartAlerts, write
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P1")

QUICK = {"ALERTS_ESCALATION_SECONDS": "0.5", "ESCALATION_EMAIL": "ops@example.com"}
INCIDENTS = QUICK | {"ALERTS_INCIDENT_SECONDS": "1"}
BREAKS: dict[str, Any] = {"breaker": {"fail_max": 1, "reset_timeout": 3600}}

DIGEST_FAILED = "SELECT count(*) FROM delivery WHERE event_type = 'escalation' AND state = 'failed'"


async def digests(subject: Alerts) -> list[dict[str, Any]]:
    mails = await subject.sandbox.mails()
    return [mail for mail in mails if mail["To"][0]["Address"] == "ops@example.com"]


async def reported(subject: Alerts, count: int) -> list[dict[str, Any]]:
    """Return the digests, once they report so many alerts."""

    async def enough() -> list[dict[str, Any]] | None:
        found = await digests(subject)
        numbers = [int(mail["Subject"].split()[1]) for mail in found]
        assert sum(numbers) <= count
        return found if sum(numbers) == count else None

    return await eventually(enough, 40)


async def test_many_failures_of_a_target_are_one_digest(alerts: StartAlerts) -> None:
    subject = await alerts(ALERTS_ESCALATION_SECONDS="6")
    await subject.sandbox.behave("slack", status=422)
    for alert_id in [await subject.accept() for _ in range(12)]:
        await subject.until(alert_id, "failed")
    found = await reported(subject, 12)
    assert len(found) <= 2  # a window may end between two failures
    text = found[-1]["Text"]
    assert "slack" in found[-1]["Subject"]
    assert "422" in text
    assert "/api/dlq/retry" in text
    assert (await subject.check())["ok"]


async def test_an_escalation_waits_while_mail_is_down(alerts: StartAlerts) -> None:
    subject = await alerts(**QUICK)
    await subject.sandbox.behave("email", status=550)  # for good: the digest itself fails
    await subject.sandbox.behave("slack", status=422)
    await subject.until(await subject.accept(), "failed")

    await eventually(partial(subject.scalar, DIGEST_FAILED))
    assert await digests(subject) == []
    await subject.sandbox.behave("email", status=200)
    await reported(subject, 1)
    assert await subject.scalar("SELECT count(*) FROM escalation") == 1  # none for the digests


async def subjects(subject: Alerts, about: str) -> list[str]:
    found = [str(mail["Subject"]) for mail in await digests(subject)]
    return [each for each in found if about in each]


async def one_about(subject: Alerts, about: str) -> dict[str, Any]:
    async def there() -> list[dict[str, Any]]:
        return [mail for mail in await digests(subject) if about in mail["Subject"]]

    (mail,) = await eventually(there, 20)
    return mail


async def test_an_open_breaker_is_reported_once_across_restarts(alerts: StartAlerts) -> None:
    subject = await alerts(slack=BREAKS, sms=BREAKS, **INCIDENTS)
    await subject.sandbox.behave("slack", status=503)
    for _ in range(2):
        await subject.accept()
    mail = await one_about(subject, "nothing gets through to slack")
    assert "2 pending" in mail["Text"]
    assert "since   20" in mail["Text"]
    assert "server_error 503" in mail["Text"]
    assert "/api/breakers/slack/reset" in mail["Text"]

    await subject.stop()
    await subject.start()
    await subject.accept()  # opens the new process's breaker
    # The next windows bring another target's mail, and no second one for slack.
    await subject.sandbox.behave("sms", status=503)
    await subject.accept("sms")
    await one_about(subject, "nothing gets through to sms")
    assert len(await subjects(subject, "slack")) == 1
    assert await subject.scalar("SELECT count(*) FROM escalation") == 0
    assert (await subject.check())["ok"]


AT_ONCE = QUICK | {"ALERTS_ESCALATION_SECONDS": "3600", "ALERTS_RECONCILE_SECONDS": "3"}


async def test_a_target_that_refuses_us_is_reported_at_once_with_what_to_correct(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack=BREAKS, **AT_ONCE)
    await subject.sandbox.behave("slack", status=401)
    await subject.accept()
    mail = await one_about(subject, "slack refuses us")
    assert "SLACK_WEBHOOK_URL" in mail["Text"]
    assert subject.environment["SLACK_WEBHOOK_URL"] not in mail["Text"]
    assert "unauthorized 401" in mail["Text"]
    assert "/api/breakers/slack/reset" in mail["Text"]


@pytest.mark.parametrize("and_slack", [False, True])
async def test_a_mail_server_that_refuses_us_is_reported_elsewhere(
    alerts: StartAlerts, *, and_slack: bool
) -> None:
    subject = await alerts(slack=BREAKS, email=BREAKS, **AT_ONCE)
    if and_slack:
        await subject.sandbox.behave("slack", status=404)
        await subject.accept()
    await subject.sandbox.behave("email", stage="mail", status=530)
    await subject.accept("email")

    async def told() -> list[str]:
        got = await subject.sandbox.received("sms" if and_slack else "slack")
        found = [str(each["body"]) for each in got]
        return [text for text in found if "email refuses us" in text.lower()]

    assert await eventually(told, 40)
    assert await digests(subject) == []


async def test_a_mail_server_that_does_not_answer_is_reported_by_the_next_channel(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(email=BREAKS, **INCIDENTS, ESCALATE_BY="email, sms,slack")
    await subject.sandbox.behave("email", stage="mail", status=451)
    await subject.accept("email")

    async def told() -> list[str]:
        found = [str(each["body"]) for each in await subject.sandbox.received("sms")]
        return [text for text in found if "nothing gets through to email" in text]

    assert await eventually(told, 40)
    assert await subject.sandbox.received("slack") == []


async def test_a_digest_names_the_alerts_and_no_contact(alerts: StartAlerts) -> None:
    subject = await alerts(**QUICK)
    await subject.sandbox.behave("slack", status=400)
    pump, lead = [
        await subject.accept(event_type, payload={"text": text}, target="slack")
        for event_type, text in (
            ("slack_alert", "Pump 7 stopped, call +48600700800\nsince noon"),
            ("lead.qualified", "Anna Nowak wants a bathroom"),
        )
    ]

    async def told() -> str:
        text = "\n".join(mail["Text"] for mail in await digests(subject)).replace("\r", "")
        return text if pump in text and lead in text else ""

    text = await eventually(told, 20)
    assert f"{pump}  slack_alert: Pump 7 stopped, call […]\n" in text
    assert f"{lead}  lead.qualified\n" in text


async def test_pending_in_doubt_and_unread_incidents_are_reported(alerts: StartAlerts) -> None:
    subject = await alerts(
        slack={"retry_delays": [60]}, **INCIDENTS | {"ALERTS_INCIDENT_PENDING": "2"}
    )
    await subject.sandbox.behave("slack", status=500)
    for _ in range(3):
        await subject.accept()
    broken = Message(str(uuid.uuid4()), "alert.accepted", {"id": "none"})
    await subject.gateway.publish("alerts", "alerts.intake", broken)
    doubt = FAILED | {"state": "'in_doubt'", "reason": "'crashed'"}
    await write(subject.engine, target="'email'", **doubt, **ONCE)
    assert "/api/dlq/resolve" in (await one_about(subject, "1 for email in doubt"))["Text"]
    assert "x-reason" in (await one_about(subject, "1 accepted messages could not be read"))["Text"]
    waiting = await one_about(subject, "3 pending for slack")
    assert "server_error 500" in waiting["Text"]
