"""The waits between attempts: delay queues, the max age, the target's own rate."""

import itertools
from datetime import datetime
from functools import partial
from typing import Any

from tests.integration.alerts.conftest import Alerts, StartAlerts
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
        row = await subject.until(alert_id, "failed")
        assert (row.reason, row.attempt) == ("expired", tried)
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


async def test_a_delay_beyond_the_max_age_is_not_waited_for(alerts: StartAlerts) -> None:
    subject = await alerts(slack={"retry_delays": [1.5, 300], "max_age": 100})
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()
    row = await subject.until(alert_id, "failed")
    assert (row.reason, row.attempt) == ("expired", 2)


async def test_a_targets_rate_is_kept_and_uses_no_attempt(alerts: StartAlerts) -> None:
    spacing = 0.25
    subject = await alerts(slack={"rate_per_minute": int(60 / spacing)})
    ids = [await subject.accept() for _ in range(12)]
    for alert_id in ids:
        row = await subject.until(alert_id, "delivered")
        assert (row.attempt, row.attempts) == (1, 1)
    received = await subject.sandbox.received("slack")
    times = [datetime.fromisoformat(each["at"]) for each in received]
    # Between admission and delivery is a claim, whose duration varies.
    assert (times[-1] - times[0]).total_seconds() >= 11 * spacing - 1
    assert len(received) == 12
