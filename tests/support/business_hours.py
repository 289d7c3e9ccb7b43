"""Moments and business hours for properties: changes of clocks, weekends, holidays."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from libs.domain.hours import Hours
from tests.support.shipped import FOLLOWUPS

WARSAW = ZoneInfo("Europe/Warsaw")
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
    st.sampled_from([(), FOLLOWUPS.hours.holidays]),
)  # fmt: skip
