"""Critical alerts move to a fallback when their target is unhealthy for long."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from services.alerts.store import incidents
from services.alerts.store.tables import delivery
from tests.conftest import NewDatabase
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.eventually import eventually

BREAKS: dict[str, Any] = {"breaker": {"fail_max": 1, "reset_timeout": 3600}, "fallback": "email"}
QUICK = {"ALERTS_RECONCILE_SECONDS": "0.3", "ALERTS_FALLBACK_SECONDS": "1"}


async def sicken(subject: Alerts, target: str, event_type: str, status: int = 500) -> None:
    await subject.sandbox.behave(target, status=status)
    await subject.accept(event_type)

    async def known() -> bool:
        found = f"SELECT count(*) FROM incident WHERE kind = 'breaker' AND target = '{target}'"
        return bool(await subject.scalar(found))

    await eventually(known)


async def test_only_a_critical_alert_moves_to_the_fallback(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack=BREAKS, **QUICK)
    await sicken(subject, "slack", "slack_alert")
    payload = {"text": "the shop is on fire", "to": "+48600700800"}  # not an e-mail address
    critical = [await subject.accept(severity="critical", payload=payload) for _ in range(3)]
    ordinary = await subject.accept(severity="warning")
    for alert_id in critical:
        await subject.until(alert_id, "delivered", "email")
        row = await subject.row(alert_id)
        assert (row.state, row.reason, row.attempt) == ("discarded", "fallback", 0)
        _, story = await subject.http("GET", f"/api/alerts/{alert_id}")
        assert story["state"] == "delivered"
    mails = await subject.sandbox.mails("staff@example.com")
    assert [mail["Text"].strip() for mail in mails] == ["the shop is on fire"] * 3
    assert (await subject.row(ordinary)).state == "pending"
    terms = await subject.check()
    expected = {"accepted": 8, "delivered": 3, "discarded": 3, "pending": 2}
    assert terms | expected == terms


async def test_a_tried_alert_moves_too_and_its_old_message_is_acknowledged(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack=BREAKS, **QUICK)
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept(severity="critical")
    await subject.until(alert_id, "delivered", "email")
    await subject.sandbox.behave("slack", status=200)
    await subject.http("POST", "/api/breakers/slack/reset")
    await subject.until(await subject.accept(), "delivered")

    async def gone() -> bool:
        return await subject.depth("alerts.slack.retry") + await subject.depth("alerts.slack") == 0

    await eventually(gone)
    assert len(await subject.sandbox.received("slack")) == 1
    assert (await subject.row(alert_id)).error.startswith("handed to email: server_error 500")


async def test_nothing_moves_while_the_fallback_is_unhealthy(alerts: StartAlerts) -> None:
    subject = await alerts(slack=BREAKS, email={"breaker": BREAKS["breaker"]}, **QUICK)
    await sicken(subject, "email", "email", 451)
    await sicken(subject, "slack", "slack_alert")
    alert_id = await subject.accept(severity="critical")

    async def long_enough() -> bool:
        old_enough = (
            "SELECT now() - since > interval '2 seconds' FROM incident WHERE target = 'slack'"
        )
        return bool(await subject.scalar(old_enough))

    await eventually(long_enough)
    assert (await subject.row(alert_id)).state == "pending"
    await subject.sandbox.behave("slack", status=200)
    await subject.http("POST", "/api/breakers/slack/reset")
    await subject.until(alert_id, "delivered")
    assert await subject.row(alert_id, "email") is None


@pytest.fixture(params=["aiopg", "asyncpg"])
async def engine(
    database: NewDatabase, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncEngine]:
    url = (await database("alerts")).replace("aiopg", request.param)
    async with postgres.connect(url, application_name="test") as opened:
        yield opened


async def new_row(engine: AsyncEngine, alert_id: UUID | None = None, **changes: Any) -> UUID:
    """Write a row as intake does, and count it."""
    row = {
        "alert_id": alert_id or uuid4(),
        "target": "slack",
        "event_type": "slack_alert",
        "severity": "critical",
        "source": "test",
        "payload": {"text": "text", "to": "somebody"},
        "accepted_at": datetime.now(UTC),
        "state": "pending",
    } | changes
    counted = text(
        "INSERT INTO ledger_total AS total (target, accepted) VALUES (:target, 1) "
        "ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + 1"
    )
    async with engine.begin() as tx:
        await tx.execute(insert(delivery).values(row))
        await tx.execute(counted, {"target": row["target"]})
    return UUID(str(row["alert_id"]))


async def become(engine: AsyncEngine, alert_id: UUID, target: str, changes: str) -> None:
    async with engine.begin() as tx:
        await tx.execute(
            text(f"UPDATE delivery SET {changes} WHERE alert_id = :id AND target = :target"),
            {"id": alert_id, "target": target},
        )


async def fall_back(
    engine: AsyncEngine, *, shut: bool = True, batch: int = 100
) -> dict[UUID, bool]:
    async with engine.begin() as tx:
        moved = await incidents.fall_back(
            tx, "slack", "email", shut=shut, same_channel=False, batch=batch
        )
    return {row.alert_id: row.added for row in moved}


async def balanced(engine: AsyncEngine) -> bool:
    equation = text(
        "SELECT (SELECT sum(accepted) FROM ledger_total) = (SELECT count(*) FROM delivery)"
    )
    async with engine.connect() as tx:
        return bool((await tx.execute(equation)).scalar_one())


SENDING = "state = 'sending', attempt = 1, attempts = 1, lease_until = now() + interval '1 minute'"
ENDED = "attempt = 1, finished_at = now(), reason = 'x'"


async def test_only_unclaimed_critical_rows_move(engine: AsyncEngine) -> None:
    once: Any = {"once_address": "a@example.com", "once_purpose": "p", "once_reference": "r"}
    moves = await new_row(engine)
    await new_row(engine, severity="warning")
    await new_row(engine, target="sms")
    await new_row(engine, **once)
    in_flight = await new_row(engine)
    await become(engine, in_flight, "slack", SENDING)
    assert await fall_back(engine) == {moves: True}
    assert await fall_back(engine) == {}
    assert await balanced(engine)


async def test_with_a_closed_breaker_only_tried_rows_move(engine: AsyncEngine) -> None:
    await new_row(engine)
    tried = await new_row(engine)
    await become(engine, tried, "slack", "attempt = 1, attempts = 1, error = 'server_error 500'")
    assert await fall_back(engine, shut=False) == {tried: True}


@pytest.mark.parametrize(
    ("other", "moved"),
    [
        ("state = 'pending'", True),
        (SENDING, True),
        (f"state = 'delivered', {ENDED}", True),
        (f"state = 'failed', {ENDED}", False),
        (f"state = 'discarded', {ENDED}", False),
    ],
)
async def test_an_alert_already_at_the_fallback_ends_here_unless_it_failed_there(
    engine: AsyncEngine, other: str, *, moved: bool
) -> None:
    alert_id = await new_row(engine)
    await new_row(engine, alert_id, target="email")
    await become(engine, alert_id, "email", other)
    assert await fall_back(engine) == ({alert_id: False} if moved else {})
    state = text("SELECT state FROM delivery WHERE target = 'slack'")
    async with engine.connect() as tx:
        assert (await tx.execute(state)).scalar_one() == ("discarded" if moved else "pending")
    assert await balanced(engine)


async def test_concurrent_fallbacks_move_each_alert_once(engine: AsyncEngine) -> None:
    ids = {await new_row(engine) for _ in range(20)}
    found = await asyncio.gather(*(fall_back(engine, batch=8) for _ in range(4)))
    moved = [alert_id for each in found for alert_id in each]
    assert len(moved) == len(set(moved))
    assert set(moved) | (await fall_back(engine)).keys() == ids
    assert await balanced(engine)
