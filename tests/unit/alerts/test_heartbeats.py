"""When a job is to come, by a period or a cron line, and what each of its pings does."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from libs.common import beside
from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import read
from services.alerts.messages import HeartbeatPing
from services.alerts.rules.heartbeats import Beat, Kind, Schedule, beat
from tests.support.contracts import EXTRA, golden

TABLE = beside.toml(__file__)
WARSAW = ZoneInfo("Europe/Warsaw")
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOURLY = Schedule(3600.0, 600.0)


@dataclass
class Row:
    paused: bool = False
    last_at: datetime | None = None
    started_at: datetime | None = None
    case_id: str | None = None


def happens(row: Row, kind: Kind, at: datetime = NOW, now: datetime = NOW) -> Beat | None:
    return beat(row, kind, at, now, HOURLY)


def cron(line: str, at: str, zone: ZoneInfo = WARSAW) -> str:
    """Return the next time by the clock of the zone, with its offset."""
    deadline = Schedule(cron=line, zone=zone).deadline(datetime.fromisoformat(at))
    return deadline.astimezone(zone).isoformat()


@pytest.mark.parametrize(("line", "at", "due"), TABLE["cron"])
def test_a_cron_line_counts_by_the_clock_of_its_zone(line: str, at: str, due: str) -> None:
    assert cron(line, at) == due


def test_a_ping_by_a_clock_that_is_ahead_counts_for_the_time_that_comes() -> None:
    early = "2026-12-01T03:29:55+01:00"
    assert cron("30 3 * * *", early) == "2026-12-02T03:30:00+01:00"


@pytest.mark.parametrize(("line", "told"), TABLE["refused"])
def test_a_cron_line_that_never_fires_is_refused(line: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Schedule(cron=line).deadline(NOW)


def test_a_run_that_started_after_a_late_success_goes_on() -> None:
    found = happens(Row(started_at=NOW), Kind.SUCCESS, NOW - MINUTE)
    assert found is not None
    assert found.values["started_at"] == NOW
    assert found.values["next_at"] == NOW + 10 * MINUTE


def test_one_that_is_paused_only_keeps_its_pings() -> None:
    assert [happens(Row(paused=True), kind) for kind in Kind] == [None, None, None]


@EXTRA
def test_a_ping_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    body = golden("heartbeat.ping")
    ping = read(Message("1", "heartbeat.ping", body | extra), HeartbeatPing)
    assert ping.model_dump(mode="json") == body | {"at": "2026-11-25T10:15:30.123456Z"}
