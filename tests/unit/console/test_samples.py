"""The hours and days of charts, and what a bar says."""

from datetime import UTC, datetime
from itertools import pairwise
from types import SimpleNamespace

from services.console.samples import begins, charts
from services.console.texts import ZONE


def test_hours_follow_each_other_over_a_change_of_clocks() -> None:
    hours = begins("hour", 24, datetime(2026, 10, 25, 12, 34, tzinfo=UTC), ZONE)
    assert hours[-1] == datetime(2026, 10, 25, 12, tzinfo=UTC)
    steps = {(late - early).total_seconds() for early, late in pairwise(hours)}
    assert (len(hours), steps) == (24, {3600})


def test_days_begin_at_midnight_where_people_are() -> None:
    days = begins("day", 14, datetime(2026, 10, 25, 23, 30, tzinfo=UTC), ZONE)
    assert days[-1] == datetime(2026, 10, 25, 23, tzinfo=UTC)
    assert days[-2] == datetime(2026, 10, 24, 22, tzinfo=UTC)


def test_what_waited_is_no_sum_and_no_sample_is_no_zero() -> None:
    times = begins("hour", 4, datetime(2026, 11, 27, 12, tzinfo=UTC), ZONE)
    rows = [
        SimpleNamespace(target="slack", begin=at, pending=pending, delivered=5, failed=0)
        for at, pending in ((times[1], 3), (times[3], 7))
    ]
    pending, delivered, failed = charts(rows, times)["slack"]
    assert pending.values == [None, 3, None, 7]
    assert (pending.number, pending.most) == (7, 7)
    assert (delivered.number, delivered.most) == (10, 5)
    assert (failed.values, failed.number) == ([None, 0, None, 0], 0)
