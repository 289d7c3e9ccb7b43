"""When a silence runs, and what it covers. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple, Self
from zoneinfo import ZoneInfo

Holds = Callable[[Any], bool]
"""A matcher."""


@dataclass(frozen=True, slots=True)
class Weekly:
    """Begins on these days of the week by a local clock; `to` may be on the next day."""

    days: frozenset[int]  # ISO: 1 is Monday
    begins: time
    ends: time
    zone: ZoneInfo

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        begins, ends = (time.fromisoformat(document[name]) for name in ("begins", "ends"))
        return cls(frozenset(document["days"]), begins, ends, ZoneInfo(document["zone"]))

    def until(self, at: datetime) -> datetime | None:
        """Return when the period that covers this moment ends.

        In a repeated hour it is the whole of it, in a skipped one nothing, as business hours are.
        """
        today = at.astimezone(self.zone).date()
        for day in (today, today - timedelta(days=1)):
            last = day if self.begins < self.ends else day + timedelta(days=1)
            opens = datetime.combine(day, self.begins, self.zone).astimezone(UTC)
            closes = datetime.combine(last, self.ends, self.zone).replace(fold=1).astimezone(UTC)
            if day.isoweekday() in self.days and opens <= at < closes:
                return closes
        return None


@dataclass(frozen=True, slots=True)
class Silence:
    id: int
    matchers: Sequence[Holds]
    critical: bool
    """It covers critical alerts, too."""
    begins: datetime
    ends: datetime
    weekly: Weekly | None = None

    def until(self, at: datetime) -> datetime | None:
        """Return until when it runs on from this moment; None: it does not run."""
        if not self.begins <= at < self.ends:
            return None
        over = self.ends if self.weekly is None else self.weekly.until(at)
        return over and min(over, self.ends)

    def fits(self, alert: Any) -> bool:
        if alert.severity == "critical" and not self.critical:
            return False
        return all(holds(alert) for holds in self.matchers)


class Quiet(NamedTuple):
    until: datetime
    silence: int


def quiet(silences: Iterable[Silence], alert: Any) -> Quiet | None:
    """Return the silence of an alert: of those that ran when it was accepted the last to end."""
    running = ((each, each.until(alert.accepted_at)) for each in silences)
    found = (Quiet(until, each.id) for each, until in running if until and each.fits(alert))
    return max(found, default=None)
