"""SIGTERM during work: intake stops first, what has begun ends, and nothing is sent twice."""

import time
from collections import Counter

import pytest

from tests.integration.alerts.conftest import StartAlerts
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P6")

HANGING = ("slack", "webhook", "sms")
EACH = 40  # several times a target's concurrency


async def test_a_stop_with_hanging_targets_ends_in_time(alerts: StartAlerts) -> None:
    hangs = {"timeout": 8.0, "retry_delays": [9, 9], "concurrency": 4}
    subject = await alerts(**dict.fromkeys(HANGING, hangs))
    for target in HANGING:
        await subject.sandbox.behave(target, hang=True)
    accepted = {
        await subject.accept("slack_alert" if target == "slack" else target): target
        for target in HANGING
        for _ in range(EACH)
    }

    sending = "SELECT count(*) FROM delivery WHERE state = 'sending'"
    await eventually(lambda: subject.scalar(sending), so=lambda n: n >= 4 * len(HANGING))
    begun = time.monotonic()
    await subject.stop()
    took = time.monotonic() - begun
    assert '"event": "service.stopped"' in subject.log.read_text()
    assert '"event": "service.drain_timed_out"' not in subject.log.read_text()
    assert '"event": "consumer.abandoned"' not in subject.log.read_text()
    assert took < 15, took  # one time-out of 8 s, and not one for each target
    tried = "SELECT count(*) FROM delivery WHERE attempt > 0"
    assert await subject.scalar(tried) == 4 * len(HANGING)
    assert await subject.scalar(sending) == 0
    await subject.sandbox.heal()
    await subject.start()
    for alert_id, target in accepted.items():
        row = await subject.until(alert_id, "delivered", target, seconds=60)
        assert row.attempt <= 2
    for target in HANGING:
        received = await subject.sandbox.received(target)
        assert set(Counter(str(each["body"]) for each in received).values()) == {1}
    assert (await subject.check())["in_doubt"] == 0
