"""Rows whose message is lost are requeued, at a limited pace."""

import uuid
from time import monotonic
from typing import Any

import pytest

from libs.common.messaging import outbox
from libs.common.messaging.broker import Message
from tests.integration.alerts.conftest import Alerts, Consent, StartAlerts, write
from tests.support.consumers import until
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P1")

QUICK = {"ALERTS_RECONCILE_SECONDS": "0.5", "ALERTS_OVERDUE_SECONDS": "2"}


async def reconciling(alerts: StartAlerts, **options: Any) -> Alerts:
    subject = await alerts(**QUICK | options)
    await subject.until_epoch()
    return subject


async def a_row(subject: Alerts, state: str, minutes: float, *, age_hours: float = 1) -> str:
    """Write a row that is overdue, or whose lease is over, and that has no message in any queue."""
    since = f"now() - interval '{minutes} minutes'"
    (alert_id,) = await write(
        subject.engine,
        state=f"'{state}'",
        attempt="1",
        attempts="1",
        due_at=since,
        created_at=f"now() - interval '{age_hours} hours'",
        lease_until=since if state == "sending" else "NULL",
    )
    return str(alert_id)


async def a_busy_target(subject: Alerts) -> None:
    """Leave a message in one of the target's queues for good."""
    subject.vhost.set_retry(r"^alerts\.slack\.retry$", 3600)
    await subject.sandbox.behave("slack", status=500)
    await subject.accept()
    await eventually(lambda: subject.depth("alerts.slack.retry"), so=lambda found: found == 1)
    await subject.sandbox.behave("slack", status=200)


@pytest.mark.parametrize("state", ["pending", "sending"])
async def test_a_row_that_lost_its_message_on_a_busy_target_is_requeued(
    alerts: StartAlerts, state: str
) -> None:
    subject = await reconciling(alerts)
    await a_busy_target(subject)
    lost = await a_row(subject, state, minutes=5)
    await subject.until(await subject.accept(), "delivered")  # the queue has moved past it
    assert (await subject.until(lost, "delivered")).generation == 1
    assert await subject.depth("alerts.slack.retry") == 1


async def test_a_message_in_a_long_queue_is_not_called_lost(alerts: StartAlerts) -> None:
    subject = await reconciling(alerts, slack={"concurrency": 1})
    await subject.sandbox.behave("slack", delay_seconds=0.25)
    ids = [await subject.accept() for _ in range(24)]
    for alert_id in ids:
        assert (await subject.until(alert_id, "delivered")).generation == 0


async def test_an_old_row_of_a_dead_worker_fails(alerts: StartAlerts) -> None:
    subject = await reconciling(alerts)
    await a_busy_target(subject)
    old = await a_row(subject, "sending", minutes=5, age_hours=100)
    assert (await subject.until(old, "failed")).reason == "expired"


async def test_a_permit_is_returned_at_once_beside_many_requeued_rows(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await reconciling(alerts, slack={"concurrency": 1}, ALERTS_OVERDUE_SECONDS="60")
    await subject.sandbox.behave("slack", hang=True)
    await write(subject.engine, 50_000, due_at="now() - interval '1 hour'")
    await eventually(
        lambda: subject.scalar("SELECT count(*) >= 45000 FROM delivery WHERE generation = 1"),
        120,
        every=0.2,
    )
    back = Message(str(uuid.uuid4()), "permit.return", {"message": "m", "attempt": 1})
    start = monotonic()
    async with subject.engine.begin() as tx:
        await outbox.add(tx, "consent.commands", "permit.return", back)

    await until(lambda: consent.returned)
    assert monotonic() - start < 2
