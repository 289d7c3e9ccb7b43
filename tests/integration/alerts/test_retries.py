"""The waits between attempts: delay queues, the max age, the target's own rate.

Critical alerts overtake others on every way to a target, and others still arrive.
"""

import asyncio
import itertools
import uuid
from datetime import datetime
from functools import partial
from typing import Any

from libs.common.messaging.broker import Message
from tests.integration.alerts.conftest import Alerts, StartAlerts, accepted
from tests.support.eventually import eventually


async def attempts(subject: Alerts, alert_id: str) -> list[dict[str, Any]]:
    _, story = await subject.http("GET", f"/api/alerts/{alert_id}")
    found: list[dict[str, Any]] = story["deliveries"][0]["history"]
    return found


async def test_an_alert_passes_through_the_delay_queues(alerts: StartAlerts) -> None:
    delays = [1.5, 2, 3, 4]
    subject = await alerts(slack={"retry_delays": delays})
    subject.vhost.set_retry(r"^alerts\.slack\.retry$", delays[0])  # as provisioning does
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()
    for queue in ("retry", "retry.2", "retry.3", "retry.4"):
        waiting = partial(subject.depth, f"alerts.slack.{queue}")
        await eventually(waiting, so=lambda depth: depth == 1)
    row = await subject.until(alert_id, "failed")
    assert (row.reason, row.attempt, row.generation) == (
        "exhausted",
        5,
        0,
    )  # no message but the first
    times = [datetime.fromisoformat(each["at"]) for each in await attempts(subject, alert_id)]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    assert all(gap >= delay for gap, delay in zip(gaps, delays, strict=True)), gaps


async def test_an_alert_that_expires_behind_an_open_breaker_is_escalated(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(
        slack={
            "retry_delays": [1.5, 2, 300],
            "max_age": 4,
            "breaker": {"fail_max": 1, "reset_timeout": 3600},
        },
        ALERTS_RECONCILE_SECONDS="0.5",
        ALERTS_ESCALATION_SECONDS="0.5",
    )
    await subject.sandbox.behave("slack", status=500)
    first = await subject.accept()
    await eventually(
        lambda: subject.http("GET", "/api/breakers"),
        so=lambda found: found[1]["slack"]["state"] == "open",
    )
    second = await subject.accept()
    ends = ((first, 1, "server_error 500"), (second, 0, "never tried"))
    for alert_id, tried, error in ends:
        row = await subject.until(alert_id, "failed", reason="expired", attempt=tried)
        assert row.error.startswith(error)
        assert (row.finished_at - row.accepted_at).total_seconds() >= 4
    _, breakers = await subject.http("GET", "/api/breakers")
    assert breakers["slack"]["state"] == "open"
    await eventually(
        lambda: subject.sandbox.mails("ops@example.com"),
        so=lambda mails: sum(int(mail["Subject"].split()[1]) for mail in mails) == 2,
    )
    await eventually(lambda: subject.depth("alerts.slack.dead"), so=lambda found: found == 2)
    assert (await subject.check())["ok"]


async def test_a_targets_rate_is_kept_and_uses_no_attempt(alerts: StartAlerts) -> None:
    spacing = 0.25
    subject = await alerts(slack={"rate_per_minute": int(60 / spacing)})
    ids = [await subject.accept() for _ in range(12)]
    for alert_id in ids:
        await subject.until(alert_id, "delivered", attempt=1, attempts=1)
    received = await subject.sandbox.received("slack")
    times = [datetime.fromisoformat(each["at"]) for each in received]
    # Between admission and delivery is a claim, whose duration varies.
    assert (times[-1] - times[0]).total_seconds() >= 11 * spacing - 1
    assert len(received) == 12


MANY = 5_000
SHUT: dict[str, Any] = {"breaker": {"fail_max": 1, "reset_timeout": 3600.0}}


async def infos(subject: Alerts, count: int) -> None:
    """Have so many alerts accepted, and their messages queued for Slack."""
    before = await subject.scalar("SELECT count(*) FROM delivery")
    for start in range(0, count, 100):
        some = [accepted("slack_alert") for _ in range(min(100, count - start))]
        message = Message(str(uuid.uuid4()), "alerts.accepted", {"alerts": some})
        await subject.gateway.publish("alerts", "alerts.intake", message)

    async def queued() -> bool:
        rows = await subject.scalar("SELECT count(*) FROM delivery")
        return bool(rows == before + count and await subject.depth("alerts.intake") == 0)

    await eventually(queued, 120)


async def arrived(subject: Alerts) -> list[str]:
    return [str(one["body"]["text"]) for one in await subject.sandbox.received("slack")]


async def place_of(subject: Alerts, text: str, seconds: float = 30) -> int:
    return (
        await eventually(lambda: arrived(subject), seconds, so=lambda found: text in found)
    ).index(text)


async def test_a_critical_alert_overtakes_five_thousand_at_a_rate(alerts: StartAlerts) -> None:
    subject = await alerts(slack={"rate_per_minute": 120})
    await infos(subject, MANY)
    before = len(await arrived(subject))
    await subject.accept(severity="critical", payload={"text": "fire"})
    after = await place_of(subject, "fire") - before
    # It is taken in (a second on a busy machine), one message that was taken before it goes, one of
    # three is an ordinary one.
    assert after <= 8
    await eventually(lambda: arrived(subject), so=lambda found: len(found) > before + after + 5)


async def all_arrived(subject: Alerts, count: int) -> bool:
    return bool(
        await subject.scalar("SELECT count(*) FROM delivery WHERE state = 'delivered'") == count
    )


async def test_of_many_critical_and_other_alerts_every_third_is_another(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack=SHUT)
    await subject.shut()
    await infos(subject, 300)
    for _ in range(300):
        await subject.accept(severity="critical", payload={"text": "fire"})
    await eventually(lambda: taken_in(subject, 601))
    await asyncio.sleep(0.5)
    await subject.heal()

    first = (await eventually(lambda: arrived(subject), so=lambda found: len(found) > 100))[:90]
    assert 45 <= first.count("fire") <= 75
    await eventually(lambda: all_arrived(subject, 601), 60)


async def taken_in(subject: Alerts, count: int) -> bool:
    return bool(await subject.scalar("SELECT count(*) FROM delivery") == count)


async def test_a_critical_alert_waits_for_its_retry_beside_no_other(alerts: StartAlerts) -> None:
    """RabbitMQ would give an ordinary one back only after the critical one before it."""
    subject = await alerts(slack={"retry_delays": [6, 7]})
    subject.vhost.set_retry(r"\.retry$", 6)
    await subject.sandbox.behave("slack", status=500)
    critical = await subject.accept(severity="critical")
    other = await subject.accept()

    async def waits(queue: str) -> bool:
        return await subject.depth(queue) == 1

    for parts in (("high.retry.6", "retry"), ("high.retry.7", "retry.7")):
        for part in parts:
            await eventually(lambda part=part: waits(f"alerts.slack.{part}"))  # type: ignore[misc]
    await subject.sandbox.behave("slack", status=200)
    for alert_id in (critical, other):
        assert (await subject.until(alert_id, "delivered")).attempt == 3
