"""When a follow-up is due, in which states it can be, and what an outcome may change.

    scheduled ──claim──> handed_over ──outcome──> sent | cancelled | failed ──┐
        ^─────too late───────┘
        │                     │  │                          ▲                 │
        └──stop──> cancelled <┘  └──> in_doubt ──a person───┘ <──a person─────┘

The claim and the outbox row are one transaction, so a step that is `handed_over` is on its way to
alerts whatever dies next. A stop takes a handed-over step back only while its outbox row is there.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

STATES = ("scheduled", "handed_over", "sent", "cancelled", "in_doubt", "failed")

END_REASONS = ("bounce", "staff")
"""Why follow-ups ended for good. A new enrolment by staff undoes `staff`, nothing `bounce`."""

REPLACES: dict[str, tuple[str, ...]] = {
    "too_late": ("handed_over", "in_doubt", "failed"),
    "sent": ("handed_over", "in_doubt", "cancelled", "failed"),
    "failed": ("handed_over", "in_doubt"),
    "cancelled": ("handed_over", "in_doubt", "failed"),
    "in_doubt": ("handed_over", "cancelled", "failed"),
}
"""Outcome → the states it may replace; all but `sent`, the truth whenever it comes, only when no
later one is known; `too_late` makes it `scheduled` again. A person may retry what failed, and
outcomes overtake each other.

`cancelled` here is a step taken back after its hand-over: should a copy have left all the same
(the relay died between publish and commit), what alerts says is the truth.
"""

LONGEST_CLOSED_DAYS = 30
DAY = timedelta(hours=24)
RESCHEDULE_AFTER = timedelta(minutes=1)
ON_ITS_WAY = timedelta(minutes=5)
"""While one is on its way to an address, the next looks again so much later."""


@dataclass(frozen=True, slots=True)
class Hours:
    """When steps may leave, by the local clock. `opens` and `closes` None: at any time."""

    zone: ZoneInfo
    opens: time | None
    closes: time | None
    weekends: bool = False
    holidays: Container[date] = ()

    def is_open(self, at: datetime) -> bool:
        if self.opens is None or self.closes is None:
            return True
        local = at.astimezone(self.zone)
        return self._works(local.date()) and self.opens <= local.time() < self.closes

    def closing(self, at: datetime) -> datetime | None:
        """Return when the window that is open at this time ends; None when it never does."""
        if self.closes is None:
            return None
        local = at.astimezone(self.zone)
        return datetime.combine(local.date(), self.closes, self.zone).astimezone(UTC)

    def next_open(self, at: datetime) -> datetime:
        """Return `at` when it is open, else the next opening, in UTC.

        Days are counted on the local calendar and only then turned into an instant: adding 24
        hours would drift by one over a change of clocks. An opening in the hour that a change
        skips is moved by it, perhaps past the closing.
        """
        if self.opens is None or self.is_open(at):
            return at
        first = at.astimezone(self.zone).date()
        for days in range(LONGEST_CLOSED_DAYS + 1):
            day = first + timedelta(days=days)
            opening = datetime.combine(day, self.opens, self.zone).astimezone(UTC)
            if opening >= at and self.is_open(opening):
                return opening
        raise ValueError(f"no opening within {LONGEST_CLOSED_DAYS} days of {at}")

    def _works(self, day: date) -> bool:
        return (self.weekends or day.isoweekday() <= 5) and day not in self.holidays


def due_times(
    now: datetime, delays: Sequence[timedelta], hours: Hours, first_delay: timedelta | None = None
) -> Iterator[datetime]:
    """Yield when each step is due: its delay after the step before it, moved into open hours."""
    due = now
    for number, delay in enumerate(delays):
        wanted = first_delay if number == 0 and first_delay is not None else delay
        due = hours.next_open(due + wanted)
        yield due


def after_cap(recent: Sequence[datetime], cap: int, now: datetime, hours: Hours) -> datetime | None:
    """Return None when one more may leave now, else when the address may be written to again.

    :param recent: hand-overs to this address within the last 24 hours
    """
    if len(recent) < cap:
        return None
    blocking = sorted(recent)[-cap]  # once this one is a day old, fewer than `cap` remain
    return hours.next_open(max(blocking + DAY, now))
