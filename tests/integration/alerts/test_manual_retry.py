"""A manual retry gives an alert all its time again, however old it is."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.store import incidents
from services.alerts.store.incidents import Way
from services.alerts.store.ledger import transitions, upkeep
from services.alerts.store.ledger.intake import NewRow, accept
from tests.integration.alerts.conftest import Alerts, Consent, StartAlerts, write
from tests.integration.alerts.test_at_most_once import follow_up
from tests.integration.alerts.test_dead_letter_moved_back import DEAD, dead_letters, move
from tests.support.eventually import eventually

PATIENT: dict[str, Any] = {"retry_delays": [60, 60]}
RETRY = {"status": "failed"}


async def reconciling(alerts: StartAlerts, **options: Any) -> Alerts:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="0.3", **options)
    await subject.until_epoch()
    return subject


async def change(subject: Alerts, alert_id: str, values: str) -> None:
    await subject.execute(
        f"UPDATE delivery SET {values} WHERE alert_id = :id", id=uuid.UUID(alert_id)
    )


async def age(subject: Alerts, alert_id: str) -> None:
    old = "now() - interval '4 days'"
    await change(subject, alert_id, f"accepted_at = {old}, created_at = {old}")


async def reconciled(subject: Alerts, target: str) -> None:
    """Wait until the reconciler has looked at all of the target's rows: it ends another one."""
    (alert_id,) = await write(
        subject.engine,
        target=f"'{target}'",
        created_at="now() - interval '4 days'",
        due_at="now() + interval '1 day'",
    )
    assert (await subject.until(str(alert_id), "failed", target)).reason == "expired"


async def tried_and_waiting(
    subject: Alerts, alert_id: str, target: str, attempt: int, reason: str
) -> None:
    row = await subject.until(alert_id, "pending", target, attempt=attempt, reason=reason)
    assert row.finished_at is None


async def by_call(subject: Alerts) -> None:
    _, answer = await subject.http("POST", "/api/dlq/retry", RETRY)
    assert answer["requeued"] == 1


async def by_a_move(subject: Alerts) -> None:
    await eventually(lambda: dead_letters(subject, DEAD))
    await move(subject, DEAD)
    await eventually(
        lambda: subject.scalar("SELECT count(*) FROM delivery WHERE state <> 'failed'")
    )


@pytest.mark.parametrize("requeue", [by_call, by_a_move])
async def test_an_old_alert_survives_a_failure_and_a_reconciliation(
    alerts: StartAlerts, requeue: Callable[[Alerts], Awaitable[None]]
) -> None:
    subject = await reconciling(alerts, slack=PATIENT)
    await subject.sandbox.behave("slack", status=422)
    alert_id = await subject.accept()
    await subject.until(alert_id, "failed")
    await age(subject, alert_id)
    await subject.sandbox.behave("slack", status=500)

    await requeue(subject)
    await tried_and_waiting(subject, alert_id, "slack", 2, "server_error")
    await reconciled(subject, "slack")
    assert (await subject.row(alert_id)).state == "pending"
    assert (
        await subject.scalar("SELECT count(*) FROM escalation") == 2
    )  # the one before, and the reconciler's

    await subject.sandbox.behave("slack", status=200)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer["requeued"] == 1
    await subject.until(alert_id, "delivered")


async def test_a_requeued_alert_expires_like_any_other(alerts: StartAlerts) -> None:
    subject = await reconciling(alerts, slack=PATIENT)
    await subject.sandbox.behave("slack", status=422)
    alert_id = await subject.accept()
    await subject.until(alert_id, "failed")
    await subject.sandbox.behave("slack", status=500)
    await by_call(subject)
    await tried_and_waiting(subject, alert_id, "slack", 2, "server_error")
    old = "created_at = now() - interval '9 days', requeued_at = now() - interval"
    await change(subject, alert_id, f"{old} '71 hours'")
    await reconciled(subject, "slack")
    assert (await subject.row(alert_id)).state == "pending"
    await change(subject, alert_id, f"{old} '73 hours'")
    assert (await subject.until(alert_id, "failed")).reason == "expired"


@pytest.mark.parametrize("mail_is_refused", [True, False])  # or consent does not reply
async def test_an_old_mail_that_is_resent_waits_like_a_new_one(
    alerts: StartAlerts, consent: Consent, *, mail_is_refused: bool
) -> None:
    subject = await reconciling(alerts, email=PATIENT)
    await subject.sandbox.behave("email", close=True)
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "in_doubt", "email")
    await age(subject, alert_id)
    await subject.sandbox.behave("email", status=451 if mail_is_refused else 200)
    consent.answer = "granted" if mail_is_refused else None

    body = {"id": alert_id, "outcome": "resend", "reason": "the recipient has nothing"}
    assert (await subject.http("POST", "/api/dlq/resolve", body))[0] == 200
    reason = "server_error" if mail_is_refused else "no_permit"
    await tried_and_waiting(subject, alert_id, "email", 2, reason)
    await reconciled(subject, "email")
    assert (await subject.row(alert_id, "email")).state == "pending"

    consent.answer = "granted"
    await subject.sandbox.behave("email", status=200)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer["requeued"] == 1
    await subject.until(alert_id, "delivered", "email")


async def test_an_old_alert_starts_anew_at_its_fallback(engine: AsyncEngine) -> None:
    row = NewRow(
        alert_id=uuid.uuid4(),
        target="slack",
        event_type="slack_alert",
        severity="critical",
        source="test",
        payload={"text": "text"},
        dedup_key=None,
        request_id=None,
        accepted_at=datetime.now(UTC) - timedelta(days=4),
    )
    async with engine.begin() as tx:
        await accept(tx, [row], 0)
        await tx.execute(sa.text("UPDATE delivery SET created_at = accepted_at"))
    async with engine.begin() as tx:
        way = Way("slack", "email", after=600)
        await incidents.fall_back(tx, way, [row.alert_id], same_channel=False)
    async with engine.begin() as tx:
        assert await upkeep.to_end(tx, upkeep.too_old("email", 60), 10) == []
        (job,) = await transitions.claim(tx, "email", [(row.alert_id, 0)], lease=60, retries=5)
    assert job is not None
    assert job.age < 60
