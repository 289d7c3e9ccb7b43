"""Critical alerts move to a fallback when their target is unhealthy for long."""

import asyncio
import json
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import beside
from services.alerts.store import incidents
from services.alerts.store.incidents import Way
from tests.integration.alerts.conftest import (
    ONCE,
    Alerts,
    StartAlerts,
    execute,
    write,
)
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P1")
TABLE = beside.toml(__file__)

BREAKS: dict[str, Any] = {"breaker": {"fail_max": 1, "reset_timeout": 3600}, "fallback": "email"}
QUICK = {"ALERTS_RECONCILE_SECONDS": "0.3", "ALERTS_FALLBACK_SECONDS": "1"}


async def sicken(subject: Alerts, target: str, event_type: str, status: int = 500) -> None:
    await subject.sandbox.behave(target, status=status)
    await subject.accept(event_type)

    found = f"SELECT count(*) FROM incident WHERE kind = 'breaker' AND target = '{target}'"
    await eventually(partial(subject.scalar, found))


async def test_only_a_critical_alert_moves_to_the_fallback(alerts: StartAlerts) -> None:
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


async def test_nothing_moves_while_the_fallback_is_unhealthy(alerts: StartAlerts) -> None:
    subject = await alerts(slack=BREAKS, email={"breaker": BREAKS["breaker"]}, **QUICK)
    await sicken(subject, "email", "email", 451)
    await sicken(subject, "slack", "slack_alert")
    alert_id = await subject.accept(severity="critical")

    old = "SELECT now() - min(accepted_at) > interval '2 s' FROM delivery"
    await eventually(partial(subject.scalar, f"{old} WHERE alert_id = '{alert_id}'"))
    assert (await subject.row(alert_id)).state == "pending"
    await subject.sandbox.behave("slack", status=200)
    await subject.http("POST", "/api/breakers/slack/reset")
    await subject.until(alert_id, "delivered")
    assert await subject.row(alert_id, "email") is None


# The shipped times, a hundred times shorter: but a first retry must outlast a send and its margin.
PROPORTIONS: dict[str, Any] = {
    "fallback": "email",
    "retry_delays": [3.0] * 5,
    "breaker": {"fail_max": 5, "reset_timeout": 0.6},
}
SCALED = {
    "ALERTS_FALLBACK_SECONDS": "6",
    "ALERTS_RECONCILE_SECONDS": "0.3",
    "ALERTS_ESCALATION_SECONDS": "3",
}


@pytest.mark.parametrize(("behaviour", "options"), TABLE["behaviours"], ids=json.dumps)
async def test_an_undelivered_critical_alert_reaches_its_fallback_in_time(
    alerts: StartAlerts, behaviour: dict[str, Any], options: dict[str, Any]
) -> None:
    subject = await alerts(slack=PROPORTIONS | options, **SCALED)
    await subject.sandbox.behave("slack", **behaviour)
    if "concurrency" in options:  # no other is overtaken than one that is as urgent
        await asyncio.gather(*(subject.accept(severity="critical") for _ in range(20)))
    payload = {"text": "the shop is on fire"}
    alert_id = await subject.accept(severity="critical", payload=payload)
    row = await subject.until(alert_id, "delivered", "email", seconds=20)
    late = (row.finished_at - row.accepted_at).total_seconds()
    assert late < 6 + 3  # and a run of the job, on a busy machine
    own = await subject.row(alert_id)
    assert (own.state, own.reason) == ("discarded", "fallback")
    mails = await subject.sandbox.mails("staff@example.com")
    assert [mail["Text"].strip() for mail in mails].count("the shop is on fire") == 1
    _, story = await subject.http("GET", f"/api/alerts/{alert_id}")
    assert story["state"] == "delivered"
    # Neither an operator's retry of what failed nor a letter from .dead sends it to Slack again.
    tried = len(await subject.sandbox.received("slack", refused_too=True))
    await subject.sandbox.behave("slack", status=200)
    _, retried = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert retried["requeued"] == 0
    assert (await subject.check())["ok"] is not False
    assert (await subject.row(alert_id)).state == "discarded"
    assert tried >= 1 or "concurrency" in options


async def test_a_critical_alert_whose_worker_died_reaches_its_fallback(alerts: StartAlerts) -> None:
    subject = await alerts(
        slack=PROPORTIONS | {"timeout": 2.0, "breaker": BREAKS["breaker"]}, **SCALED
    )
    await subject.sandbox.behave("slack", hang=True)
    alert_id = await subject.accept(severity="critical")
    await subject.until(alert_id, "sending")
    subject.kill9()
    # another process has opened the breaker
    await subject.execute(
        "UPDATE breaker SET state = 'open', next_trial_at = now() + interval '1 hour'"
        " WHERE target = 'slack'"
    )
    await subject.start()
    await subject.until(alert_id, "delivered", "email", seconds=20)
    assert (await subject.row(alert_id)).reason == "fallback"


async def test_a_critical_alert_leaves_a_target_that_refuses_us_at_once(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(
        slack={"fallback": "email", "breaker": {"fail_max": 5, "reset_timeout": 3600}},
        ALERTS_FALLBACK_SECONDS="600",
        ALERTS_RECONCILE_SECONDS="0.3",
    )
    await subject.sandbox.behave("slack", status=401)
    before = await subject.accept(severity="critical")
    await subject.until(before, "delivered", "email")
    after = await subject.accept(severity="critical")
    await subject.until(after, "delivered", "email", seconds=5)
    assert (await subject.check())["ok"] is not False


async def new_row(engine: AsyncEngine, **columns: str) -> UUID:
    payload = """'{"text": "text", "to": "somebody"}'"""
    (alert_id,) = await write(engine, **{"severity": "'critical'", "payload": payload} | columns)
    return alert_id


async def become(engine: AsyncEngine, alert_id: UUID, target: str, changes: str) -> None:
    await execute(
        engine,
        f"UPDATE delivery SET {changes} WHERE alert_id = :id AND target = :target",
        id=alert_id,
        target=target,
    )


NOW = Way("slack", "email", after=0)


async def fall_back(engine: AsyncEngine, way: Way = NOW, *, batch: int = 100) -> dict[UUID, bool]:
    async with engine.connect() as tx:
        stuck = await incidents.stuck(tx, way, asks=False, batch=batch)
    async with engine.begin() as tx:
        moved = await incidents.fall_back(tx, way, stuck, same_channel=False)
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
    moves = await new_row(engine)
    await new_row(engine, severity="'warning'")
    await new_row(engine, target="'sms'")
    await new_row(engine, **ONCE)
    in_flight = await new_row(engine)
    await become(engine, in_flight, "slack", SENDING)
    assert await fall_back(engine) == {moves: True}
    assert await fall_back(engine) == {}
    assert await balanced(engine)


LONG_AGO = "accepted_at = now() - interval '1 hour'"
FAILED = "state = 'failed', attempt = 1, reason = 'gone', finished_at = now()"
DEAD = "state = 'sending', attempt = 1, attempts = 1, lease_until = now() - interval '2 minutes'"


@pytest.mark.parametrize(
    ("changes", "waits", "refused", "shut"),
    [
        (LONG_AGO, False, True, False),  # intake was late: its own target has a minute
        (f"{LONG_AGO}, created_at = now() - interval '61 s'", True, True, False),
        ("created_at = now() - interval '599 s'", False, True, False),
        ("created_at = now() - interval '601 s'", True, True, False),
        ("created_at = now() - interval '601 s', requeued_at = now()", False, True, False),
        (f"created_at = now() - interval '601 s', {SENDING}", False, False, False),
        (f"created_at = now() - interval '601 s', {DEAD}", True, True, False),
        (FAILED, True, True, True),
        (f"{FAILED}, payload = NULL", False, False, False),
        (FAILED.replace("now()", "now() - interval '61 minutes'"), False, False, False),
    ],
)
async def test_what_moves_depends_on_its_age_its_state_and_both_targets(
    engine: AsyncEngine, changes: str, *, waits: bool, refused: bool, shut: bool
) -> None:
    """Whether it moves while its target refuses nothing, refuses us, or the fallback is shut."""
    alert_id = await new_row(engine)
    await become(engine, alert_id, "slack", changes)
    found = []
    for way in ({}, {"refuses": True}, {"shut": True}):
        async with engine.connect() as tx:
            ten_minutes = Way("slack", "email", 600, **way)
            found.append(bool(await incidents.stuck(tx, ten_minutes, asks=False, batch=9)))
    assert found == [waits, refused, shut]
    if waits:
        assert await fall_back(engine, Way("slack", "email", 600)) == {alert_id: True}
        assert await balanced(engine)


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
    await new_row(engine, alert_id=f"'{alert_id}'", target="'email'")
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
