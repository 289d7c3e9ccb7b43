"""When follow-ups are due."""

from datetime import UTC, datetime, time, timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.domain.hours import Hours
from services.followups.rules.sequence import REPLACES, STATES, after_cap, due_times
from tests.support.business_hours import WARSAW, moments, some_hours

HOURS = Hours(WARSAW, time(9), time(19))
ALWAYS = Hours(WARSAW, None, None)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=WARSAW)


@given(moments, st.lists(st.integers(0, 10**6), min_size=1, max_size=6), some_hours)
def test_steps_keep_their_order_and_their_distance(
    now: datetime, delays: list[int], hours: Hours
) -> None:
    steps = [timedelta(seconds=delay) for delay in delays]
    due = list(due_times(now, steps, hours))
    assert len(due) == len(steps)
    for before, step, at in zip([now, *due], steps, due, strict=False):
        assert at >= before + step


def test_a_given_delay_replaces_the_first_one_only() -> None:
    now = local("2026-11-25 10:00")
    steps = [timedelta(days=1), timedelta(hours=2)]
    assert list(due_times(now, steps, HOURS, timedelta(minutes=5))) == [
        local("2026-11-25 10:05"), local("2026-11-25 12:05"),
    ]  # fmt: skip


def test_the_cap_postpones_the_second_mail_by_a_day() -> None:
    now = local("2026-11-25 10:00")
    assert after_cap([], 1, now, HOURS) is None
    assert after_cap([now - timedelta(hours=1)], 1, now, HOURS) == local("2026-11-26 09:00")
    assert after_cap([now - timedelta(hours=1)], 2, now, HOURS) is None


@given(
    st.lists(st.integers(0, 24 * 3600 - 1), max_size=8),
    st.integers(1, 4),
    st.integers(0, 24 * 3600),
)
def test_after_cap_leaves_fewer_than_the_cap_in_the_day_before(
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
