"""When follow-ups are due."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.followups.sequence import REPLACES, STATES, Hours, after_cap, due_times
from tests.support.shipped import FOLLOWUPS as SHIPPED

WARSAW = ZoneInfo("Europe/Warsaw")
HOURS = Hours(WARSAW, time(9), time(19))
ALWAYS = Hours(WARSAW, None, None)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=WARSAW)


@pytest.mark.parametrize(
    ("at", "opens"),
    [
        ("2026-11-25 08:59", "2026-11-25 09:00"),  # a Wednesday
        ("2026-11-25 09:00", "2026-11-25 09:00"),
        ("2026-11-25 18:59", "2026-11-25 18:59"),
        ("2026-11-25 19:00", "2026-11-26 09:00"),
        ("2026-11-27 20:00", "2026-11-30 09:00"),  # Friday evening
        ("2026-11-28 12:00", "2026-11-30 09:00"),
        ("2026-03-28 12:00", "2026-03-30 09:00"),  # over the change to summer time
        ("2026-10-24 12:00", "2026-10-26 09:00"),  # and back
    ],
)
def test_what_falls_into_quiet_hours_waits_for_the_next_opening(at: str, opens: str) -> None:
    assert HOURS.next_open(local(at)) == local(opens)


def test_a_weekend_that_is_not_quiet_is_used() -> None:
    hours = Hours(WARSAW, time(9), time(19), weekends=True)
    assert hours.next_open(local("2026-11-28 12:00")) == local("2026-11-28 12:00")


@pytest.mark.parametrize(
    ("at", "opens"),
    [
        ("2026-11-10 20:00", "2026-11-12 09:00"),  # Independence Day
        ("2026-12-23 20:00", "2026-12-28 09:00"),  # Christmas Eve, a holiday since 2025
        ("2024-12-23 20:00", "2024-12-24 09:00"),
        ("2027-03-26 20:00", "2027-03-30 09:00"),  # Easter Monday, after the change of clocks
        ("2026-06-03 20:00", "2026-06-05 09:00"),  # Corpus Christi, 60 days after Easter
        ("2030-12-31 20:00", "2031-01-02 09:00"),
    ],
)
def test_the_public_holidays_of_poland_are_skipped(at: str, opens: str) -> None:
    hours = SHIPPED.hours
    assert hours.next_open(local(at)) == local(opens)
    assert not hours.is_open(local(opens) - timedelta(minutes=1))


def test_without_quiet_hours_now_is_open() -> None:
    midnight = local("2026-11-28 00:00")
    assert ALWAYS.next_open(midnight) == midnight


moments = st.integers(0, 4 * 365 * 24 * 3600).map(
    lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
near_changes = st.builds(
    lambda day, minutes: day + timedelta(minutes=minutes),
    st.sampled_from([
        datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC),
        datetime(2027, 3, 28, tzinfo=UTC), datetime(2027, 10, 31, tzinfo=UTC),
    ]),
    st.integers(-3 * 24 * 60, 3 * 24 * 60),
)  # fmt: skip
some_hours = st.builds(
    lambda opens, length, weekends, holidays: Hours(
        WARSAW, time(opens), time(min(opens + length, 23), 59), weekends, holidays
    ),
    st.integers(0, 22), st.integers(0, 12), st.booleans(),
    st.sampled_from([(), SHIPPED.hours.holidays]),
)  # fmt: skip


@given(st.one_of(moments, near_changes), some_hours)
def test_the_next_opening_is_open_and_never_before(at: datetime, hours: Hours) -> None:
    opening = hours.next_open(at)
    assert opening >= at
    assert hours.is_open(opening)
    assert hours.next_open(opening) == opening


@given(near_changes, some_hours, st.integers(0, 60 * 24 * 4))
def test_nothing_open_is_passed_over(at: datetime, hours: Hours, minutes: int) -> None:
    between = at + timedelta(minutes=minutes)
    in_the_gap = between.astimezone(WARSAW).hour in {2, 3}  # an opening that does not exist
    if between < hours.next_open(at) and not in_the_gap:
        assert not hours.is_open(between)


@given(near_changes, st.integers(0, 8))
def test_over_a_change_of_clocks_an_opening_stays_at_its_hour(at: datetime, days: int) -> None:
    opening = SHIPPED.hours.next_open(at + timedelta(days=days)).astimezone(WARSAW)
    assert 9 <= opening.hour < 19
    if opening > at + timedelta(days=days):
        assert (opening.hour, opening.minute) == (9, 0)
    assert opening.isoweekday() <= 5
    assert opening.date() not in SHIPPED.hours.holidays


@given(moments, st.lists(st.integers(0, 10**6), min_size=1, max_size=6), some_hours)
def test_steps_keep_their_order_and_their_distance(
    now: datetime, delays: list[int], hours: Hours
) -> None:
    steps = [timedelta(seconds=delay) for delay in delays]
    due = list(due_times(now, steps, hours))
    assert len(due) == len(steps)
    for before, step, at in zip([now, *due], steps, due, strict=False):
        assert at >= before + step


def test_an_opening_that_the_change_of_clocks_skips_is_no_opening() -> None:
    hours = Hours(WARSAW, time(2), time(2, 59), weekends=True)
    assert hours.next_open(local("2026-03-28 12:00")) == local("2026-03-30 02:00")


def test_a_given_delay_replaces_the_first_one_only() -> None:
    now = local("2026-11-25 10:00")
    steps = [timedelta(days=1), timedelta(hours=2)]
    assert list(due_times(now, steps, HOURS, timedelta(minutes=5))) == [
        local("2026-11-25 10:05"), local("2026-11-25 12:05"),
    ]  # fmt: skip


def test_the_cap_lets_one_through_and_puts_the_next_off_by_a_day() -> None:
    now = local("2026-11-25 10:00")
    assert after_cap([], 1, now, HOURS) is None
    assert after_cap([now - timedelta(hours=1)], 1, now, HOURS) == local("2026-11-26 09:00")
    assert after_cap([now - timedelta(hours=1)], 2, now, HOURS) is None


@given(
    st.lists(st.integers(0, 24 * 3600 - 1), max_size=8),
    st.integers(1, 4),
    st.integers(0, 24 * 3600),
)
def test_whenever_the_cap_says_so_fewer_than_the_cap_left_in_the_day_before(
    ages: list[int], cap: int, later: int
) -> None:
    now = local("2026-11-25 10:00").astimezone(UTC)
    recent = [now - timedelta(seconds=age) for age in ages]
    at = after_cap(recent, cap, now, ALWAYS) or now
    at += timedelta(seconds=later)
    assert sum(left > at - timedelta(hours=24) for left in recent) < cap


def test_no_outcome_replaces_sent_or_comes_before_the_hand_over() -> None:
    assert set(REPLACES) - {"too_late"} <= set(STATES)
    for froms in REPLACES.values():
        assert "scheduled" not in froms
        assert "sent" not in froms
