"""What protocol B assumes of the sending process, checked at run time."""

import asyncio

import pytest

from tests.integration.alerts.conftest import Alerts, Consent, StartAlerts
from tests.integration.alerts.test_at_most_once import Outcomes, ends, follow_up, returned
from tests.support.consumers import until
from tests.support.servers import frozen

pytestmark = pytest.mark.promise("P4")


async def metric(subject: Alerts, name: str) -> float:
    lines = (await subject.metrics()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


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
