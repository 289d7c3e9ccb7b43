"""Business hours by a local clock. The clock and the holidays are passed in, so it is pure.

Each day's hours are two instants, made from the local calendar: adding 24 hours would drift by one
over a change of clocks.
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
    """`closes` is the first moment that is closed again. `opens` or `closes` None: always open."""

    zone: ZoneInfo
    opens: time | None
    closes: time | None
    weekends: bool = False
    holidays: Container[date] = ()

    def is_open(self, at: datetime) -> bool:
        return self.next_opening(at) <= at

    def closing(self, at: datetime) -> datetime | None:
        """Return when the hours that are open at this time, or open next, end; None: never."""
        return None if self.closes is None else next(self._windows(at))[1]

    def next_opening(self, at: datetime) -> datetime:
        """Return `at` when it is open, else the next opening in UTC.

        :raises ValueError: closed for LONGEST_CLOSED_DAYS
        """
        return max(at, next(self._windows(at))[0])

    def add(self, at: datetime, duration: timedelta) -> datetime:
        """Return the moment, itself open, before which `duration` of open time has passed.

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
        """Return how much open time lies between two moments; nothing when `end` is first.

        :raises ValueError: closed for LONGEST_CLOSED_DAYS
        """
        total = timedelta()
        for opens, closes in self._windows(begin):
            if opens >= end:
                break
            total += max(min(closes, end) - max(opens, begin.astimezone(UTC)), timedelta())
        return total

    def _windows(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the open times (UTC) that end after `at`, in their order, for ever."""
        if self.opens is None or self.closes is None:
            yield _ALWAYS
            return
        first, closed = at.astimezone(self.zone).date(), 0
        for days in count():
            day = first + timedelta(days=days)
            # In the hour that comes twice: from the first opening to the last closing. An hour
            # that a change skips may leave the day no open time at all.
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
