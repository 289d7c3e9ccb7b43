"""An unhealthy target: its queue keeps its messages, and no other target is delayed."""

import itertools
from datetime import datetime
from typing import Any

import aio_pika
import pytest

from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P6")

RESET = 1.5
BREAKS: dict[str, Any] = {
    "concurrency": 4,
    "breaker": {"fail_max": 3, "reset_timeout": RESET},
    "retry_delays": [2] * 10,
}


async def tries(subject: Alerts, target: str = "slack") -> list[datetime]:
    everything = await subject.sandbox.received(target, refused_too=True)
    return [datetime.fromisoformat(one["at"]) for one in everything]


async def consumers(subject: Alerts, queue: str) -> int:
    async with await aio_pika.connect(subject.vhost.admin_url()) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.consumer_count or 0


async def test_an_open_breaker_takes_no_message_and_its_trip_is_an_attempt(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack={"breaker": {"fail_max": 1, "reset_timeout": 3600}})
    await eventually(lambda: consumers(subject, "alerts.slack"), so=lambda found: found == 1)
    await subject.sandbox.behave("slack", status=503)
    alert_id = await subject.accept()
    await eventually(lambda: consumers(subject, "alerts.slack"), so=lambda found: found == 0)
    assert (await subject.breaker())["state"] == "open"
    # the breaker records before the ledger
    await eventually(lambda: subject.scalar("SELECT count(*) FROM attempt"))
    _, story = await subject.http("GET", f"/api/alerts/{alert_id}")
    (attempt,) = story["deliveries"][0]["history"]
    assert (attempt["outcome"], attempt["reason"], attempt["status"]) == (
        "failed",
        "server_error",
        503,
    )
    untouched = await subject.accept()
    assert await subject.until(untouched, "pending")
    assert await consumers(subject, "alerts.monday") == 1
    assert (await subject.row(untouched)).attempt == 0


async def test_a_429_neither_trips_nor_counts_and_pauses_only_its_target(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack={"breaker": {"fail_max": 1, "reset_timeout": 3600}})
    await subject.sandbox.behave("slack", status=429, retry_after=2)
    alert_id = await subject.accept("lead.qualified")
    await subject.until(alert_id, "delivered", "monday")
    await eventually(subject.breaker, so=lambda found: found["paused"])
    shown = await subject.breaker()
    assert (shown["state"], shown["failures"]) == ("closed", 0)
    await subject.sandbox.behave("slack", status=200)
    row = await subject.until(alert_id, "delivered")
    assert row.attempts == 1


async def test_an_open_breaker_tries_one_of_a_hundred_and_then_delivers_all(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack=BREAKS)
    await subject.sandbox.behave("slack", status=500)
    ids = [await subject.accept() for _ in range(100)]

    # Two may fail and free their slots before the third trips it; those in flight still end.
    before = (3 - 1) + 4
    await eventually(lambda: tries(subject), 30, so=lambda found: len(found) >= before + 3)
    trials = (await tries(subject))[before:]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(trials)]
    assert all(gap >= RESET * 0.9 for gap in gaps), gaps
    shown = await subject.breaker()
    assert shown["state"] in {"open", "half_open"}
    _, health = await subject.http("GET", "/health/deep")
    assert health["status"] == "degraded"
    assert health["circuit_breakers"]["slack"]["state"] in {
        "open",
        "half_open",
    }  # a trial may be in flight
    untried = await subject.scalar("SELECT count(*) FROM delivery WHERE attempt = 0")
    assert untried >= 100 - len(await tries(subject))

    await subject.sandbox.behave("slack", status=200)
    for alert_id in ids:
        await subject.until(alert_id, "delivered")
    assert len(await subject.sandbox.received("slack")) == 100
    assert (await subject.breaker())["state"] == "closed"
    assert (await subject.check())["ok"]


async def test_a_manual_reset_delivers_everything_at_once(alerts: StartAlerts) -> None:
    options = BREAKS | {"breaker": {"fail_max": 3, "reset_timeout": 3600}}
    subject = await alerts(slack=options)
    await subject.sandbox.behave("slack", status=500)
    ids = [await subject.accept() for _ in range(10)]
    await eventually(subject.breaker, so=lambda found: found["state"] == "open")
    assert (await subject.breaker())["next_trial_at"] is not None
    await subject.sandbox.behave("slack", status=200)
    status, _ = await subject.http("POST", "/api/breakers/slack/reset")
    assert status == 200
    for alert_id in ids:
        await subject.until(alert_id, "delivered")
    assert (await subject.http("POST", "/api/breakers/unknown/reset"))[0] == 404


@pytest.mark.quick
async def test_a_hanging_target_does_not_delay_another(alerts: StartAlerts) -> None:
    subject = await alerts(monday={"timeout": 10.0, "retry_delays": [20]})
    await subject.sandbox.behave("monday", hang=True)
    ids = [await subject.accept("lead.qualified") for _ in range(40)]
    for alert_id in ids:
        row = await subject.until(alert_id, "delivered", "slack")
        assert (row.finished_at - row.accepted_at).total_seconds() < 10
    _, stats = await subject.http("GET", "/api/dlq/stats")
    assert stats["targets"]["slack"]["delivered"] == 40
    assert stats["targets"]["monday"]["delivered"] == 0
