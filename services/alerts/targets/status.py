"""Shares each target's breaker, pauses and rate among all processes, through the database.

"Five failures, one trial" applies to the target, not for each process. While the database is
unavailable no process learns anything, but nothing is sent either: a claim needs the database.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4, uuid5

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.messaging import outbox
from libs.common.process.logs import log
from libs.domain import acts_outbox
from libs.domain.acts import Act
from libs.domain.events import occurred
from services.alerts import metrics
from services.alerts.rules.delivery import BreakerState
from services.alerts.store import breakers as store
from services.alerts.store import subscriptions
from services.alerts.store.breakers import BreakerStatus
from services.alerts.store.ledger import upkeep
from services.alerts.targets.breaker import Breaker, Observations
from services.alerts.targets.throttle import Throttle

_EVENTS = UUID("5b7cf3c1-2f53-4f0b-93a5-7c9d5f0c2a11")
EXCHANGE_SECONDS = 1.0  # until what another process reported has reached this one


class TargetStatus:
    def __init__(
        self,
        engine: AsyncEngine,
        breakers: Mapping[str, Breaker],
        throttles: Mapping[str, Throttle],
        settings: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        self._engine = engine
        self._breakers = breakers
        self._throttles = throttles
        self._settings = settings
        self._process: UUID = uuid4()
        self._joined: set[str] = set()
        self._last: Mapping[str, BreakerStatus] = {}
        self._observed = asyncio.Event()

    def sharing(self, target: str) -> int:
        """Return how many processes share a target's work; 0 while it must come one by one.

        That is while a process of the last hour reads no batches, and while nothing is taken: in
        what waits then, RabbitMQ lets two critical messages overtake one other.
        """
        status, throttle = self._last.get(target), self._throttles[target]
        together = status is not None and status.together and throttle.seconds_shut == 0
        return status.processes if status is not None and together else 0

    @asynccontextmanager
    async def membership(self) -> AsyncIterator[None]:
        """Leave at the end, so that a stopped process keeps no share of the rate and no trial."""
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # unavailable: it counts as dead within seconds
                await store.run.alone(self._engine, "leave", process=self._process)

    async def run(self) -> None:
        """Exchange once a second, and at once after an observation; runs until cancelled."""
        while True:
            self._observed.clear()
            with postgres.through_outages("target_status.database_unavailable") as outage:
                await self.exchange()
            if outage.error:
                await asyncio.sleep(EXCHANGE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(EXCHANGE_SECONDS):
                    await self._observed.wait()

    async def exchange(self) -> None:
        """Report what was observed here, and follow what all processes have observed."""
        eras = {name: breaker.era for name, breaker in self._breakers.items()}
        new = eras.keys() - self._joined
        for breaker in self._breakers.values():
            breaker.on_observation = self._observed.set
        observed: dict[str, Observations] = {}
        reports: list[dict[str, Any]] = []
        for name, breaker in self._breakers.items():
            pause = self._throttles[name].unreported_pause
            observed[name], breaker.observations = breaker.observations, Observations()
            if self._matters(name, observed[name]) or pause:
                reports.append(
                    {
                        "target": name,
                        **asdict(observed[name]),
                        "wants_trial": breaker.wants_trial,
                        "paused": pause,
                        "fail_max": breaker.fail_max,
                        "reset_timeout": breaker.reset_timeout,
                    }
                )
        try:
            async with self._engine.begin() as tx:
                if new:
                    await store.run(tx, "join", targets=sorted(new))
                await store.run(tx, "report", process=self._process, reports=reports)
                last = await store.read(tx, self._process)
                await outbox.add_all(tx, _changes(self._last, last))
        except BaseException:
            for name in observed.keys() & self._breakers.keys():  # what came since is added
                breaker = self._breakers[name]
                breaker.observations = _together(observed[name], breaker.observations)
            raise
        self._last, self._joined = last, set(eras)
        for each in reports:
            if (throttle := self._throttles.get(each["target"])) is not None:
                throttle.reported(each["paused"])
        self._follow(eras)

    def _follow(self, eras: Mapping[str, int]) -> None:
        for name, status in self._last.items():
            metrics.REPLICAS.set(status.processes)
            metrics.HELD.labels(name).set(status.held is not None)
            # A breaker that has changed since then must first report its own observations.
            breaker = self._breakers.get(name)
            if breaker is not None and breaker.era == eras.get(name):
                breaker.follow(status.state, status.seconds_to_trial, mine=status.mine)
                self._throttles[name].follow(status.paused, status.processes)

    def _matters(self, name: str, observed: Observations) -> bool:
        """Return whether to report; a success matters only while something is wrong."""
        last = self._last.get(name)
        wrong = last is None or last.failures > 0 or last.since is not None
        return bool(
            observed.failures
            or observed.trial is not None
            or (observed.healthy and wrong)
            or self._breakers[name].wants_trial
        )

    async def reset(self, target: str, act: Act) -> None:
        """Close a breaker: here at once, in the other processes within a second or two."""
        async with self._engine.begin() as tx:
            await store.run(tx, "reset", target=target)
            await acts_outbox.add(tx, act)
        self._breakers[target].observations = Observations()
        self._breakers[target].reset()
        self._throttles[target].release()
        log.warning("breaker.reset", target=target, operator=str(act.actor))

    async def now(self) -> dict[str, dict[str, Any]]:
        """Return each target's shared status; this process's own while the database is away."""
        shared: Mapping[str, BreakerStatus] = {}
        with postgres.through_outages():
            async with self._engine.connect() as tx:
                shared = await store.read(tx, self._process)
        return {name: self._shown(name, shared.get(name)) for name in self._breakers}

    def _own(self, name: str) -> BreakerStatus:
        breaker, paused = self._breakers[name], self._throttles[name].seconds_shut
        wait = breaker.seconds_to_trial
        return BreakerStatus(
            breaker.state, breaker.failures, wait, mine=True, paused=paused, since=None, processes=1
        )

    def _shown(self, name: str, shared: BreakerStatus | None) -> dict[str, Any]:
        status = shared or self._own(name)
        shut = status.state is not BreakerState.CLOSED or status.paused > 0
        trial_at = datetime.now(UTC) + timedelta(seconds=status.seconds_to_trial)
        return {
            "state": status.state,
            "failures": status.failures,
            "next_trial_at": trial_at.isoformat() if status.state is BreakerState.OPEN else None,
            "open_since": status.since.isoformat() if status.since and shut else None,
            "paused": f"refused us: {status.held}" if status.held else shut,
            "settings": list(self._settings.get(name, ())) if status.held else [],
            "processes": status.processes,
            "title": status.title,
        }


async def release_backlog(
    engine: AsyncEngine, target: str, throttle: Throttle, per_second: int
) -> None:
    """Requeue rows that wait for a retry, when the breaker closes and while it stays closed."""
    while True:
        await throttle.closed_again.wait()
        throttle.closed_again.clear()
        released = per_second
        while released == per_second and throttle.seconds_shut == 0:
            with postgres.through_outages("backlog.database_unavailable"):
                async with engine.begin() as tx:
                    rows: list[Any] = []
                    for critical in (True, False):
                        left = per_second - len(rows)
                        rows += await upkeep.run(
                            tx, "waiting", target=target, critical=critical, limit=left
                        )
                    await upkeep.requeue(tx, rows)
                released = len(rows)
                log.info("backlog.released", target=target, rows=released)
            await asyncio.sleep(1)


def _changes(
    before: Mapping[str, BreakerStatus], now: Mapping[str, BreakerStatus]
) -> list[outbox.Outgoing]:
    """Return the events of targets that stopped or began to deliver; every process says the same.

    A subscription's would be delivered to it.
    """
    said = []
    for name in before.keys() & now.keys():
        was, since = before[name].since, now[name].since
        if subscriptions.is_one(name) or (was is None) == (since is None):
            continue
        event_type = "target.paused" if since else "target.recovered"
        event_id = uuid5(_EVENTS, f"{event_type} {name} {since or was}")
        said.append(occurred(event_type, event_id, target=name))
    return said


def _together(before: Observations, after: Observations) -> Observations:
    if after.healthy:
        return after
    trial = before.trial if after.trial is None else after.trial
    refused = after.refused or before.refused
    return Observations(before.healthy, before.failures + after.failures, trial, refused)
