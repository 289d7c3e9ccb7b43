"""Business hours by a local clock. Pure: the clock and the holidays are passed in.

Each day's hours are two instants, made from the local calendar: adding 24 hours would drift by one
hour over a clock change.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from zoneinfo import ZoneInfo

LONGEST_CLOSED_DAYS = 30
_ALWAYS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Hours:
    """`closes` is exclusive. `opens` or `closes` None: always open."""

    zone: ZoneInfo
    opens: time | None
    closes: time | None
    weekends: bool = False
    holidays: Container[date] = ()

    def is_open(self, at: datetime) -> bool:
        return self.next_opening(at) <= at

    def closing(self, at: datetime) -> datetime | None:
        """Return when the current or next open period ends; None: never."""
        return None if self.closes is None else next(self._windows(at))[1]

    def next_opening(self, at: datetime) -> datetime:
        """Return `at` if it is open, else the next opening in UTC.

        :raises ValueError: closed for LONGEST_CLOSED_DAYS
        """
        return max(at, next(self._windows(at))[0])

    def add(self, at: datetime, duration: timedelta) -> datetime:
        """Return the open moment at which `duration` of open time has passed.

        :raises ValueError: closed for LONGEST_CLOSED_DAYS, or `duration` is negative
        """
        if duration < timedelta():
            raise ValueError("a negative duration")
        at = at.astimezone(UTC)  # sums of aware local times ignore a change of clocks
        for opens, closes in self._windows(at):
            began = max(at, opens)
            if duration < closes - began:
                return began + duration
            duration -= closes - began
        raise AssertionError("windows have no end")

    def between(self, begin: datetime, end: datetime) -> timedelta:
        """Return the open time between two moments; zero if `end` is first.

        :raises ValueError: closed for LONGEST_CLOSED_DAYS
        """
        total = timedelta()
        for opens, closes in self._windows(begin):
            if opens >= end:
                break
            total += max(min(closes, end) - max(opens, begin.astimezone(UTC)), timedelta())
        return total

    def _windows(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the open periods (UTC) that end after `at`, in order, forever."""
        if self.opens is None or self.closes is None:
            yield _ALWAYS
            return
        first, closed = at.astimezone(self.zone).date(), 0
        for days in count():
            day = first + timedelta(days=days)
            # In a repeated hour: from the first opening to the last closing. A skipped hour may
            # leave the day without open time.
            opens = datetime.combine(day, self.opens, self.zone).astimezone(UTC)
            last = datetime.combine(day, self.closes, self.zone).replace(fold=1)
            closes = last.astimezone(UTC)
            if self._works(day) and max(at, opens) < closes:
                yield opens, closes
                closed = 0
            elif (closed := closed + 1) > LONGEST_CLOSED_DAYS:
                raise ValueError(f"no opening within {LONGEST_CLOSED_DAYS} days before {day}")

    def _works(self, day: date) -> bool:
        return (self.weekends or day.isoweekday() <= 5) and day not in self.holidays
