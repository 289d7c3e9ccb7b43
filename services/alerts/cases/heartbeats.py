"""Raises an alert, with a case, when a job or an event type does not come in time, or fails.

The deadline is a column of a row, as in `timer`; the next success ends the case, and a notice says
so. Whatever changes a row raises its alert in the same transaction.
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Disposition, read
from libs.common.messaging.queue_depths import KEPT_SECONDS, Depths
from libs.common.messaging.topology import retry_name
from libs.common.process.logs import log
from services.alerts import messages, metrics, topology
from services.alerts.intake import Intake, beat
from services.alerts.messages import HeartbeatPing
from services.alerts.rules.case import Rules
from services.alerts.store.cases import cases, heartbeats

PREFETCH = 8
"""Fewer than the connections to the database: pings of one job wait for each other in them."""
PASSING_SECONDS = 15.0 + KEPT_SECONDS
"""How long the gateway may pass on what it has taken, and how old the answer about a queue is."""
IN_FLIGHT_SECONDS = 5.0
"""How long what has left its queue may take to be in its table. What is later recovers it."""


@dataclass(eq=False)
class Heartbeats:
    engine: AsyncEngine
    rules: Rules
    intake: Intake
    depths: Callable[[Collection[str]], Awaitable[Depths]]
    in_flight: float = IN_FLIGHT_SECONDS
    _configured: bool = field(default=False, init=False)
    _empty_at: datetime | None = field(default=None, init=False)

    async def run(self) -> None:
        """Raise an alert for each whose time is over; replicas share them."""
        if not self._configured:
            async with self.engine.begin() as tx:
                now = await cases.now(tx)
                watched = {name: each.deadline(now) for name, each in self.rules.heartbeats.items()}
                # Watch those that are new, and forget those that are not watched any more.
                await heartbeats.run(tx, "forget", names=list(watched))
                times = list(watched.values())
                await heartbeats.run(tx, "watch", names=list(watched), times=times)
            self._configured = True
        async with self.engine.connect() as tx:
            now = await cases.now(tx)
            over = {"event_types": list(self.rules.heartbeats), "before": now}
            late = (await heartbeats.run(tx, "any_over", **over)).scalar_one()
        if not late or (known := await self._known_until(now)) is None:
            return
        async with self.engine.begin() as tx:
            missed = await self._raise(tx, known)
        for name, event_type in missed:
            metrics.HEARTBEATS_MISSED.labels(event_type or "job").inc()
            log.warning("heartbeat.missed", heartbeat=name)

    async def _known_until(self, now: datetime) -> datetime | None:
        """Return a time: what was taken before it is in the tables, for all that is known.

        After an outage of this service pings and signs wait in its queues. So these are seen empty
        first, and then what was handed out has a while.
        """
        if self._empty_at is None:
            signs = [topology.INTAKE_QUEUE] if self.rules.heartbeats else []
            queues = [topology.PINGS_QUEUE, *signs]
            depths = await self.depths([*queues, *map(retry_name, queues)])
            if any(depth != 0 for depth in depths.values()):
                return None  # unknown is not empty
            self._empty_at = now
        if now - self._empty_at < timedelta(seconds=self.in_flight):
            return None
        known, self._empty_at = self._empty_at - timedelta(seconds=PASSING_SECONDS), None
        return known

    async def _raise(self, tx: AsyncConnection, before: datetime) -> list[tuple[str, str | None]]:
        alerts, missed = [], []
        over = {"event_types": list(self.rules.heartbeats), "before": before}
        for row in await heartbeats.run(tx, "lock_over", **over):
            now, schedule = await cases.now(tx), self.rules.schedule(row)
            opens = schedule.hours.next_opening(now)
            if opens > now:  # found late
                await heartbeats.change(tx, row.id, {"next_at": opens})
                continue
            alert = messages.heartbeat_missed(row, schedule, now)
            await heartbeats.change(tx, row.id, {"case_id": alert.id})
            alerts.append(alert)
            missed.append((row.name, row.event_type))
        await self.intake.accept(tx, alerts, None)
        return missed

    async def handle(self, message: Message) -> Disposition:
        """Take a ping from the queue."""
        await self.take(read(message, HeartbeatPing), message.request_id)
        return Ack()

    async def take(self, ping: HeartbeatPing, request_id: str | None) -> None:
        """Apply a ping, once: what comes again changes nothing."""
        async with self.engine.begin() as tx:
            row = (await heartbeats.run(tx, "lock", id=ping.heartbeat)).one_or_none()
            if row is None or row.version != ping.url_version:
                known = False  # it was deleted, or has another URL by now
            elif known := await heartbeats.log(tx, ping):
                alert = await beat(tx, row, self.rules.schedule(row), ping)
                await self.intake.accept(tx, [alert] if alert else [], request_id)
        metrics.PINGS.labels(str(ping.kind) if known else "dropped").inc()
