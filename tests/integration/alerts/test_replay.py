"""What a target has accepted is sent again, once each, as new generations."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from services.alerts.http.dlq import MOST_REPLAYED
from tests.integration.alerts.conftest import Alerts
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P1")

HOUR = timedelta(hours=1)


async def call(subject: Alerts, begin: datetime, end: datetime | None = None, **more: Any) -> Any:
    times = {"since": begin.isoformat(), "until": (end or datetime.now(UTC)).isoformat()}
    body = {"target": "webhook", **times, **more}
    return await subject.http("POST", "/api/alerts/replay", body, caller="admin")


async def received(subject: Alerts, count: int) -> list[str]:
    found = await eventually(
        partial(subject.sandbox.received, "webhook"), 20, so=lambda got: len(got) >= count
    )
    return [str(each["body"]["id"]) for each in found]


async def test_what_was_delivered_in_a_time_is_sent_again_once_and_recorded(
    subject: Alerts,
) -> None:
    begin = datetime.now(UTC)
    ids = [await subject.accept("webhook") for _ in range(3)]
    other = await subject.accept("slack_alert")
    await subject.until(other, "delivered")
    for each in ids:
        await subject.until(each, "delivered", "webhook")
    end = datetime.now(UTC)
    assert await call(subject, begin, end, dry_run=True) == (200, {"matched": 3, "requeued": 0})
    assert len(await received(subject, 3)) == 3
    assert await call(subject, begin, end) == (200, {"matched": 3, "requeued": 3})
    assert sorted(await received(subject, 6)) == sorted(ids * 2)
    # What it sent again was delivered later: the same call finds none of it.
    assert (await call(subject, begin, end))[1]["requeued"] == 0
    assert (await call(subject, begin, end, event_type="slack_alert"))[1]["matched"] == 0
    for each in ids:
        row = await subject.row(each, "webhook")
        assert (row.generation, row.operator) == (1, "tester")
    assert len(await subject.sandbox.received("slack")) == 1
    check = await subject.check()
    assert (check["ok"], check["accepted"], check["delivered"]) == (True, 4, 4)


async def test_a_replay_of_too_many_is_refused(subject: Alerts) -> None:
    now = datetime.now(UTC)
    values = "gen_random_uuid(), 'webhook', 'webhook', 'info', 's', '{}', now(), 'delivered', 'ok'"
    await subject.execute(
        "INSERT INTO delivery (alert_id, target, event_type, severity, source, payload,"
        " accepted_at, state, reason, attempt, attempts, finished_at)"
        f" SELECT {values}, 1, 1, now() - interval '1 m' FROM generate_series(0, {MOST_REPLAYED})"
    )
    status, problem = await call(subject, now - HOUR)
    assert (status, problem["errors"][0]["field"]) == (422, "since")
