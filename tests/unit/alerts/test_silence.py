"""What a silence covers: matchers, regular expressions in linear time, weekly periods."""

import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.config import matchers
from services.alerts.config.matchers import BadMatcherError, matcher
from services.alerts.rules import silence
from services.alerts.rules.silence import Silence, Weekly
from tests.support import effort

MATCHERS = tomllib.loads(Path(__file__).with_name("silence.toml").read_text(encoding="utf-8"))
WARSAW = ZoneInfo("Europe/Warsaw")
NOW = datetime(2026, 3, 25, 12, tzinfo=UTC)


@dataclass
class Alert:
    event_type: str = "pump.alarm"
    target: str = "slack"
    severity: str = "warning"
    source: str = "scada"
    dedup_key: str | None = None
    payload: Any = field(default_factory=dict)
    accepted_at: datetime = NOW


PAYLOAD = {
    "host": "web-12",
    "n": 3,
    "ok": True,
    "labels": {"app.io/name": "db", "deep": {"a.b": "x"}},
}


@pytest.mark.parametrize("text", [*MATCHERS["holds"], *MATCHERS["fails"]])
def test_a_matcher_compares_one_field(text: str) -> None:
    assert matcher(text)(Alert(payload=PAYLOAD)) is (text in MATCHERS["holds"])


@pytest.mark.parametrize(("text", "at"), [*MATCHERS["refused"], ("event_type=" + "x" * 300, 301)])
def test_a_bad_matcher_is_refused_at_its_column(text: str, at: int) -> None:
    with pytest.raises(BadMatcherError, match=f"^column {at}: "):
        matcher(text)


_ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "[a-c]", "\\."])
_ITEMS = st.builds(str.__add__, _ATOMS, st.sampled_from(["", "*", "+", "?"])) | st.just("|")


@given(st.lists(_ITEMS, max_size=7).map("".join), st.text("abc.x", max_size=8))
def test_a_pattern_means_what_it_means_to_python(pattern: str, value: str) -> None:
    fits = bool(re.fullmatch(pattern, value, re.DOTALL))
    assert matchers._pattern(pattern, 0).isinstance_python(value) is fits


@pytest.mark.promise("P17")
@pytest.mark.parametrize("pattern", ["a*" * 99 + "b", ".*" * 50 + "!", "[^x]*" * 40 + "y"])
def test_the_time_of_a_pattern_is_linear_in_the_value(pattern: str) -> None:
    fits = matchers._pattern(pattern, 0).isinstance_python
    cost = effort.of(lambda size: "a" * size, fits)
    assert effort.fault(cost, matchers.MOST_VALUE // 2) is None
    assert not fits("a" * (matchers.MOST_VALUE + 1))


def covering(**fields: Any) -> Silence:
    given_ = {"id": 1, "matchers": (), "critical": False}
    times = {"begins": NOW - timedelta(days=400), "ends": NOW + timedelta(days=400)}
    return Silence(**{**given_, **times, **fields})


def test_a_critical_alert_is_covered_only_if_the_silence_says_so() -> None:
    alert = Alert(severity="critical")
    assert silence.quiet([covering()], alert) is None
    assert silence.quiet([covering(critical=True)], alert) is not None


def test_a_silence_counts_from_its_begin_to_before_its_end() -> None:
    one = covering(begins=NOW, ends=NOW + timedelta(hours=1))
    second = timedelta(seconds=1)
    times = (NOW - second, NOW, one.ends - second, one.ends)
    assert [one.until(at) is not None for at in times] == [False, True, True, False]


NIGHT = Weekly(frozenset({6}), time(23), time(4), WARSAW)  # from Saturday into Sunday


@pytest.mark.parametrize(
    ("local", "hours"),
    [
        # An ordinary week, the night on which 2:00 is skipped, and that on which it comes twice.
        ("2026-03-14 23:00", 5),
        ("2026-03-28 23:00", 4),
        ("2026-10-24 23:00", 6),
    ],
)
def test_a_week_goes_by_the_local_clock(local: str, hours: int) -> None:
    begins = datetime.fromisoformat(local).replace(tzinfo=WARSAW)
    one, until = covering(weekly=NIGHT), begins.astimezone(UTC) + timedelta(hours=hours)
    second = timedelta(seconds=1)
    assert one.until(begins.astimezone(UTC) - second) is None
    assert one.until(begins.astimezone(UTC)) == until
    assert one.until(until - second) == until
    assert one.until(until) is None
    assert one.until(begins.astimezone(UTC) + timedelta(days=1)) is None


def test_a_period_in_the_skipped_hour_is_skipped() -> None:
    weekly = Weekly(frozenset({7}), time(2), time(3), WARSAW)
    day = datetime(2026, 3, 29, tzinfo=UTC)
    assert not any(weekly.until(day + timedelta(minutes=n)) for n in range(24 * 60))


def test_a_period_that_ends_in_the_repeated_hour_ends_the_second_time() -> None:
    weekly = Weekly(frozenset({6}), time(23), time(2, 30), WARSAW)
    begins = datetime(2026, 10, 24, 23, tzinfo=WARSAW).astimezone(UTC)
    assert weekly.until(begins) == begins + timedelta(hours=4.5)


def test_a_week_ends_with_its_silence() -> None:
    begins = datetime(2026, 3, 14, 23, tzinfo=WARSAW).astimezone(UTC)
    one = covering(weekly=NIGHT, ends=begins + timedelta(hours=1))
    assert one.until(begins) == one.ends
