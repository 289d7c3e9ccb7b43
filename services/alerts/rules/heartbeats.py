"""When a job or an event type is to come, and what follows from each of its pings. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from typing import Any
from zoneinfo import ZoneInfo

from libs.domain.hours import Hours

ALWAYS = Hours(ZoneInfo("UTC"), None, None)
EARLY = timedelta(seconds=30)
"""A ping this long before its time counts for it: clocks differ."""


class Kind(StrEnum):
    START = auto()
    SUCCESS = auto()
    FAIL = auto()


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the next success is due: seconds of `hours` after the last one, or by a cron line."""

    every: float | None = None
    grace: float = 0.0  # seconds
    cron: str | None = None
    zone: ZoneInfo = ALWAYS.zone
    hours: Hours = ALWAYS

    def deadline(self, at: datetime) -> datetime:
        """Return when it is missed, if it came at `at`.

        :raises ValueError: the cron line is malformed, or never fires
        """
        grace = timedelta(seconds=self.grace)
        if self.cron is None:
            return self.hours.add(at, timedelta(seconds=self.every or 0)) + grace
        from cronsim import CronSim, CronSimError  # only jobs with a cron line need it

        if len(self.cron.split()) != 5:  # with six it would count seconds
            raise ValueError("must have five fields, as in 30 3 * * 1-5")
        try:
            due: datetime = next(CronSim(self.cron, (at + EARLY).astimezone(self.zone)))
        except CronSimError as error:
            raise ValueError(str(error).lower()) from None
        except StopIteration:
            raise ValueError("never fires") from None
        return due.astimezone(UTC) + grace


@dataclass(frozen=True, slots=True)
class Beat:
    """The effect of a ping on its heartbeat."""

    values: dict[str, Any]
    fails: bool = False  # an alert says so
    recovers: bool = False


def beat(row: Any, kind: Kind, at: datetime, now: datetime, schedule: Schedule) -> Beat | None:
    """Decide the effect of a ping; None: of one that is older than the last end, or that again.

    :param row: locked
    :param at: when the gateway took it, which may be long ago
    """
    if row.paused or (row.last_at is not None and at <= row.last_at):
        return None
    grace = timedelta(seconds=schedule.grace)
    if kind is Kind.START:  # a job that begins again and again, and never ends, is not well
        if row.started_at is not None:
            return None
        return Beat({"started_at": at, "next_at": at + grace})
    started = row.started_at if row.started_at is not None and row.started_at > at else None
    deadline = schedule.deadline(at) if started is None else started + grace
    values = {"last_at": at, "started_at": started, "next_at": deadline}
    if kind is Kind.FAIL:
        return Beat(values, fails=row.case_id is None)
    return Beat(values, recovers=row.case_id is not None and deadline > now)


def state(row: Any, now: datetime) -> str:
    """Return how it stands, in one word."""
    if row.paused:
        return "paused"
    if row.case_id is not None:
        return "down"
    if row.started_at is not None:
        return "running"
    if now > row.next_at - timedelta(seconds=row.grace):
        return "late"
    return "new" if row.last_at is None else "up"
