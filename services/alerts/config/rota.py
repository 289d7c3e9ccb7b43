"""Reads each schedule's iCalendar file when it has changed, and keeps the last valid one.

Shifts are in memory, so that no transaction waits for a disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import icalendar
import recurring_ical_events

from libs.domain.hours import Hours
from services.alerts.config.targets import Config
from services.alerts.rules import shifts as oncall
from services.alerts.rules.shifts import OnCall, Shift

AHEAD = timedelta(days=14)
"""How far ahead shifts are known; even an unchanged file is reloaded long before they end."""
AGAIN = timedelta(hours=1)
MAX_BYTES = 1024 * 1024


@dataclass
class Rota:
    """One schedule."""

    path: Path
    otherwise: str
    hours: Hours  # of its user; their zone is that of all-day shifts and times without a zone
    able: frozenset[str]  # people with the contacts that its messages need
    shifts: Sequence[Shift] = ()
    fault: str | None = None
    _read: tuple[int, datetime] | None = field(default=None, init=False)

    def who(self, overrides: Sequence[Shift], now: datetime) -> OnCall:
        return oncall.who(self.otherwise, self.shifts, overrides, now)

    def refresh(self, now: datetime) -> None:
        """Read the file if it has changed. If it cannot be read, the last shifts stay."""
        try:
            changed = self.path.stat().st_mtime_ns
            if self._read is None or self._read[0] != changed or now - self._read[1] >= AGAIN:
                found = read(self.path, self.hours.zone, now, now + AHEAD)
                known = [each for each in found if each.person in self.able]
                strangers = sorted({each.person for each in found} - self.able)
                self.shifts, self._read = known, (changed, now)
                self.fault = f"{self.path.name}: {_unable(strangers)}" if strangers else None
        except OSError as error:
            self.fault = f"{self.path.name}: {error.strerror}"
        except Exception as error:  # noqa: BLE001 - the parsers raise what they like
            self.fault = f"{self.path.name}: {type(error).__name__}: {error}"


def _unable(names: Sequence[str]) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb} not in [people] with what the schedule's messages need"


def read(path: Path, zone: ZoneInfo, begin: datetime, end: datetime) -> list[Shift]:
    """Return the shifts of a file that overlap this time, ordered by start.

    :raises OSError: it cannot be read
    :raises Exception: it is not an iCalendar file
    """
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES} bytes")
    calendar = icalendar.Calendar.from_ical(text)
    events = recurring_ical_events.of(calendar).between(begin - timedelta(days=1), end)
    shifts = [
        Shift(
            _instant(each.start, zone),
            _instant(each.end, zone),
            str(each["SUMMARY"]).strip().lower(),  # Anna is [people.anna]
        )
        for each in events
        if str(each.get("STATUS", "")).upper() != "CANCELLED"
    ]
    return sorted(
        (each for each in shifts if each.ends > begin), key=lambda each: (each.begins, each.person)
    )


def _instant(at: date, zone: ZoneInfo) -> datetime:
    if not isinstance(at, datetime):
        at = datetime.combine(at, time(), zone)
    return (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)


def load(config: Config, folder: Path) -> dict[str, Rota]:
    """Read all schedules.

    :param folder: the configuration's folder; paths of files are relative to it
    """
    rotas = {}
    for name, schedule in config.schedules.items():
        needs = config.needs_of(name, config.targets)
        able = frozenset(key for key, each in config.people.items() if not each.lacks(needs))
        rotas[name] = Rota(
            folder / schedule.file,
            schedule.otherwise,
            config.hours_for(name),
            able,
        )
        rotas[name].refresh(datetime.now(UTC))
    return rotas


def faults(rotas: Mapping[str, Rota]) -> dict[str, str]:
    """Return the faults of schedules' files, by schedule."""
    return {name: rota.fault for name, rota in rotas.items() if rota.fault}
