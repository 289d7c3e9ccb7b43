"""Business hours: when they are open, and how open time is counted."""

import tomllib
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.domain.hours import Hours
from tests.support.business_hours import WARSAW, moments, near_changes, some_hours
from tests.support.shipped import FOLLOWUPS as SHIPPED

TABLES = tomllib.loads(Path(__file__).with_name("hours.toml").read_text(encoding="utf-8"))
HOURS = Hours(WARSAW, time(9), time(19))
ALWAYS = Hours(WARSAW, None, None)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=WARSAW)


@pytest.mark.parametrize(("at", "opens"), TABLES["opens"].items())
def test_a_time_in_quiet_hours_moves_to_the_next_opening(at: str, opens: str) -> None:
    assert HOURS.next_opening(local(at)) == local(opens)


@pytest.mark.parametrize(("at", "opens"), TABLES["holidays"].items())
def test_the_public_holidays_of_poland_are_skipped(at: str, opens: str) -> None:
    hours = SHIPPED.hours
    assert hours.next_opening(local(at)) == local(opens)
    assert not hours.is_open(local(opens) - timedelta(minutes=1))


@given(st.one_of(moments, near_changes), some_hours)
def test_the_next_opening_is_open_and_never_before(at: datetime, hours: Hours) -> None:
    opening = hours.next_opening(at)
    assert opening >= at
    assert hours.is_open(opening)
    assert hours.next_opening(opening) == opening


def test_an_opening_in_a_skipped_hour_does_not_exist() -> None:
    hours = Hours(WARSAW, time(2), time(2, 59), weekends=True)
    assert hours.next_opening(local("2026-03-28 12:00")) == local("2026-03-30 02:00")


def test_an_hour_that_comes_twice_is_open_both_times() -> None:
    hours = Hours(WARSAW, time(1), time(2, 30), weekends=True)
    twice = local("2026-10-25 02:15")
    assert hours.is_open(twice.replace(fold=0))
    assert hours.is_open(twice.replace(fold=1))
    assert hours.closing(twice) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(("at", "minutes", "ends"), TABLES["counted"])
def test_only_open_time_is_counted(at: str, minutes: int, ends: str) -> None:
    assert SHIPPED.hours.add(local(at), timedelta(minutes=minutes)) == local(ends)


def test_elapsed_hours_are_counted_over_a_clock_change() -> None:
    night = Hours(WARSAW, time(1), time(4), weekends=True)
    at, hours = local("2026-03-29 01:30"), timedelta(hours=1)
    assert night.add(at, hours) == local("2026-03-29 03:30")
    assert night.add(local("2026-10-25 01:30"), 3 * hours) == local("2026-10-25 03:30")
    assert ALWAYS.add(at, hours) == local("2026-03-29 03:30")


@settings(max_examples=40, deadline=None)  # each looks at every minute of some days
@given(st.one_of(moments, near_changes), some_hours, st.integers(0, 600))
def test_the_open_time_until_add_equals_the_added_duration(
    at: datetime, hours: Hours, minutes: int
) -> None:
    at = at.replace(second=0)
    end = hours.add(at, timedelta(minutes=minutes))
    assert hours.is_open(end)
    length = int((end - at).total_seconds() // 60)
    if length < 5 * 24 * 60:
        open_minutes = sum(hours.is_open(at + timedelta(minutes=n)) for n in range(length))
        assert open_minutes == minutes


@given(near_changes, some_hours, st.integers(0, 10**5), st.integers(0, 10**5))
def test_two_waits_end_when_their_sum_does(
    at: datetime, hours: Hours, first: int, second: int
) -> None:
    one, other = timedelta(seconds=first), timedelta(seconds=second)
    assert hours.add(hours.add(at, one), other) == hours.add(at, one + other)


@given(st.one_of(moments, near_changes), some_hours, st.integers(0, 10**6))
def test_between_returns_the_duration_that_add_takes(
    at: datetime, hours: Hours, seconds: int
) -> None:
    wait = timedelta(seconds=seconds)
    assert hours.between(at, hours.add(at, wait)) == wait
    assert hours.between(at, at - wait) == timedelta()


def test_hours_that_never_open_are_an_error() -> None:
    class Everything:
        def __contains__(self, day: object) -> bool:
            return True

    with pytest.raises(ValueError, match="no opening"):
        Hours(WARSAW, time(9), time(19), holidays=Everything()).next_opening(local("2026-11-25"))
