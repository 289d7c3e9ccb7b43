"""Who is on call now, and who is not to be asked, from memory.

Schedule files, overrides and quiet hours are reloaded periodically.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.process.logs import log
from services.alerts import metrics
from services.alerts.config import rota
from services.alerts.config.rota import Rota
from services.alerts.rules import shifts as oncall
from services.alerts.rules.case import Person
from services.alerts.rules.shifts import Shift
from services.alerts.rules.silence import Weekly
from services.alerts.store.cases import overrides

POLL_SECONDS = 5.0
"""Every replica applies a changed file, an override and quiet hours within this time."""
AHEAD = timedelta(days=1)


@dataclass(eq=False)
class Schedules:
    engine: AsyncEngine
    rotas: Mapping[str, Rota]
    configured: Mapping[str, Person]
    overrides: dict[str, list[Shift]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.people = dict(self.configured)
        """With their quiet hours; `refresh` changes it."""

    async def begin(self) -> None:
        """Load them before the first case asks; without the database none asks."""
        with postgres.through_outages("schedules.database_unavailable"):
            await self.refresh()

    async def refresh(self) -> None:
        """Reload what has changed; without the database the last overrides stay."""
        now = datetime.now(UTC)
        before = rota.faults(self.rotas)
        for each in self.rotas.values():
            await asyncio.to_thread(each.refresh, now)
        if (faults := rota.faults(self.rotas)) != before:
            log.warning("rota.faults", faults=faults)
        async with self.engine.connect() as tx:
            self.overrides = await overrides.current(tx)
            self.people.update(self.with_quiet(await overrides.run(tx, "quiet")))
        for name in self.rotas:
            metrics.ONCALL_GAP.labels(name).set(self.gap(name, now).total_seconds())

    def with_quiet(self, rows: Iterable[Any]) -> dict[str, Person]:
        """Return the people with these quiet hours, which come before those of the file."""
        own = {
            row.person: {"quiet": Weekly.read(row.weekly), "quiet_if_critical": row.critical}
            for row in rows
        }
        return {key: replace(each, **own.get(key, {})) for key, each in self.configured.items()}

    def person(self, schedule: str, now: datetime) -> str | None:
        """Return who is on call; None if the schedule is no longer configured."""
        if (found := self.rotas.get(schedule)) is None:
            return None
        return found.who(self.overrides.get(schedule, ()), now).person

    def on_rota(self, schedule: str) -> set[str]:
        """Return who has a shift in the next days, or is on call while nobody has one."""
        if (found := self.rotas.get(schedule)) is None:
            return set()
        shifts = (*found.shifts, *self.overrides.get(schedule, ()))
        return {found.otherwise, *(shift.person for shift in shifts)}

    def gap(self, schedule: str, now: datetime) -> timedelta:
        """Return the open time of the next day in which `otherwise` is on call."""
        hours = self.rotas[schedule].hours
        return sum((hours.between(*each) for each in self.gaps(schedule, now, AHEAD)), timedelta())

    def gaps(self, schedule: str, now: datetime, ahead: timedelta) -> list[oncall.Period]:
        """Return the periods with open time in which `otherwise` is on call."""
        found, others = self.rotas[schedule], self.overrides.get(schedule, ())
        gaps = oncall.gaps(found.shifts, others, now, now + ahead)
        return [each for each in gaps if found.hours.between(*each)]
