"""When a follow-up is due, in which states it can be, and what an outcome may change.

    scheduled ──claim──> handed_over ──outcome──> sent | cancelled | failed ──┐
        ^─────too late───────┘
        │                     │  │                          ▲                 │
        └──stop──> cancelled <┘  └──> in_doubt ──a person───┘ <──a person─────┘

The claim and the outbox row are one transaction, so a step that is `handed_over` is on its way to
alerts whatever dies next. A stop takes a handed-over step back only while its outbox row is there.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from libs.common.hours import Hours

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

DAY = timedelta(hours=24)
RESCHEDULE_AFTER = timedelta(minutes=1)
ON_ITS_WAY = timedelta(minutes=5)
"""While one is on its way to an address, the next looks again so much later."""


def due_times(
    now: datetime, delays: Sequence[timedelta], hours: Hours, first_delay: timedelta | None = None
) -> Iterator[datetime]:
    """Yield when each step is due: its delay after the step before it, moved into open hours."""
    due = now
    for number, delay in enumerate(delays):
        wanted = first_delay if number == 0 and first_delay is not None else delay
        due = hours.next_opening(due + wanted)
        yield due


def after_cap(recent: Sequence[datetime], cap: int, now: datetime, hours: Hours) -> datetime | None:
    """Return None when one more may leave now, else when the address may be written to again.

    :param recent: hand-overs to this address within the last 24 hours
    """
    if len(recent) < cap:
        return None
    blocking = sorted(recent)[-cap]  # once this one is a day old, fewer than `cap` remain
    return hours.next_opening(max(blocking + DAY, now))
