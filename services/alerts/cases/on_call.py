"""Who is on call now, from memory: schedule files and overrides, reloaded periodically."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.process import logs
from services.alerts import metrics
from services.alerts.config.rota import Rotas
from services.alerts.rules import shifts as oncall
from services.alerts.rules.shifts import Shift
from services.alerts.store.cases import overrides

log = logs.get_logger(__name__)

POLL_SECONDS = 5.0
"""Every replica applies a changed file or override within this time."""
AHEAD = timedelta(days=1)


@dataclass(eq=False)
class Schedules:
    engine: AsyncEngine
    rotas: Rotas
    overrides: dict[str, list[Shift]] = field(default_factory=dict)

    async def refresh(self) -> None:
        """Reload what has changed; without the database the last overrides stay."""
        now = datetime.now(UTC)
        before = self.rotas.faults()
        await asyncio.to_thread(self.rotas.refresh, now)
        if (faults := self.rotas.faults()) != before:
            log.warning("rota.faults", faults=faults)
        if self.rotas.by_name:
            async with self.engine.connect() as tx:
                self.overrides = await overrides.current(tx)
        for name in self.rotas.by_name:
            metrics.ONCALL_GAP.labels(name).set(self.gap(name, now).total_seconds())

    def person(self, schedule: str, now: datetime) -> str | None:
        """Return who is on call; None if the schedule is no longer configured."""
        if schedule not in self.rotas.by_name:
            return None
        return self.now(schedule, now).person

    def people(self, schedule: str) -> set[str]:
        """Return who has a shift in the next days, or is on call while nobody has one."""
        rota = self.rotas.by_name.get(schedule)
        if rota is None:
            return set()
        shifts = (*rota.shifts, *self.overrides.get(schedule, ()))
        return {rota.otherwise, *(shift.person for shift in shifts)}

    def now(self, schedule: str, now: datetime) -> oncall.OnCall:
        return self.rotas.who(schedule, self.overrides.get(schedule, ()), now)

    def gap(self, schedule: str, now: datetime) -> timedelta:
        """Return the open time of the next day in which `otherwise` is on call."""
        rota = self.rotas.by_name[schedule]
        gaps = oncall.gaps(rota.shifts, self.overrides.get(schedule, ()), now, now + AHEAD)
        return sum((rota.hours.between(begin, end) for begin, end in gaps), timedelta())
