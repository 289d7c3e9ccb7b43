"""Raises an alert, with a case, when a watched event type does not come in time.

The deadline is a column of a row, as in `timer`; the next event ends the case (`intake`).
"""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.process import logs
from services.alerts import metrics
from services.alerts.intake import Intake
from services.alerts.messages import HEARTBEAT_MISSED, AlertAccepted
from services.alerts.rules.case import Rules
from services.alerts.store.cases import cases, heartbeats

log = logs.get_logger(__name__)


@dataclass(eq=False)
class Heartbeats:
    engine: AsyncEngine
    rules: Rules
    intake: Intake
    _configured: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Raise an alert for each event type whose time is over; replicas share them."""
        if not self._configured:
            async with self.engine.begin() as tx:
                now = await cases.now(tx)
                watched = {name: self.rules.deadline(name, now) for name in self.rules.heartbeats}
                await heartbeats.configure(tx, watched)
            self._configured = True
        if not self.rules.heartbeats:
            return
        async with self.engine.begin() as tx:
            missed = await self._raise(tx)
        for name, case_id in missed.items():
            metrics.HEARTBEATS_MISSED.labels(name).inc()
            log.warning("heartbeat.missed", event_type=name, case_id=str(case_id))

    async def _raise(self, tx: AsyncConnection) -> dict[str, UUID]:
        missed = {}
        for row in await heartbeats.due(tx, self.rules.heartbeats):
            now = await cases.now(tx)
            watched = self.rules.heartbeats[row.name]
            opens = self.rules.hours_of(watched.hours).next_opening(now)
            if opens > now:  # found late
                await heartbeats.wait(tx, row.name, opens)
                continue
            alert = _alert(row.name, watched.within, now)
            await self.intake.accept(tx, [alert], None)
            await heartbeats.missed(tx, row.name, alert.id)
            missed[row.name] = alert.id
        return missed


def _alert(name: str, within: float, now: datetime) -> AlertAccepted:
    text = f"No {name} in {within / 3600:.3g} h of the time in which it is watched"
    return AlertAccepted(
        id=uuid4(),
        event_type=HEARTBEAT_MISSED,
        payload={"heartbeat": name, "text": text},
        severity="warning",
        source="alerts",
        accepted_at=now,
    )
