"""The states of a follow-up step, its transitions and its due times.

    scheduled ──claim──> handed_over ──outcome──> sent | cancelled | failed ──┐
        ^─────too late───────┘
        │                     │  │                          ▲                 │
        └──stop──> cancelled <┘  └──> in_doubt ──a person───┘ <──a person─────┘

The claim and the outbox row are one transaction, so a `handed_over` step reaches alerts whatever
crashes next. A stop recalls such a step only while its outbox row exists.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from libs.domain.hours import Hours

STATES = ("scheduled", "handed_over", "sent", "cancelled", "in_doubt", "failed")

REPLACES: dict[str, tuple[str, ...]] = {
    "too_late": ("handed_over", "in_doubt", "failed"),
    "sent": ("handed_over", "in_doubt", "cancelled", "failed"),
    "failed": ("handed_over", "in_doubt"),
    "cancelled": ("handed_over", "in_doubt", "failed"),
    "in_doubt": ("handed_over", "cancelled", "failed"),
}
"""Outcome → the states it may replace. `sent` always counts; any other outcome counts only when no
later one is known, because outcomes can arrive out of order. `too_late` makes the step `scheduled`
again. An operator may retry what failed.

A `cancelled` step here was recalled after its hand-over. If the relay died between publish and
commit, the message was published all the same, and the outcome from alerts wins.
"""

DAY = timedelta(hours=24)
RESCHEDULE_AFTER = timedelta(minutes=1)
ON_ITS_WAY = timedelta(minutes=5)
"""How long a step waits while another one to the same address is in flight."""


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
    """Return None if one more mail may be sent now, else when the next one may.

    :param recent: hand-overs to this address within the last 24 hours
    """
    if len(recent) < cap:
        return None
    blocking = sorted(recent)[-cap]  # when this one is a day old, fewer than `cap` remain
    return hours.next_opening(max(blocking + DAY, now))
