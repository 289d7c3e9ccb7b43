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
from uuid import UUID, uuid4

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.process import logs
from libs.domain import acts_outbox
from libs.domain.acts import Act
from services.alerts import metrics
from services.alerts.rules.delivery import BreakerState
from services.alerts.store import breakers as store
from services.alerts.store.breakers import BreakerStatus
from services.alerts.store.ledger import upkeep
from services.alerts.targets.breaker import Breaker, Observations
from services.alerts.targets.throttle import Throttle

log = logs.get_logger(__name__)

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
        self._joined = False
        self._last: Mapping[str, BreakerStatus] = {}
        self._observed = asyncio.Event()
        for breaker in breakers.values():
            breaker.on_observation = self._observed.set

    @asynccontextmanager
    async def membership(self) -> AsyncIterator[None]:
        """Leave at the end, so that a stopped process keeps no share of the rate and no trial."""
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # unavailable: it counts as dead within seconds
                async with self._engine.begin() as tx:
                    await store.leave(tx, self._process)

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
                if not self._joined:
                    await store.join(tx, list(self._breakers))
                await store.report(tx, self._process, reports)
                self._last = await store.read(tx, self._process)
        except BaseException:
            for name, breaker in self._breakers.items():  # not reported: what came since is added
                breaker.observations = _together(observed[name], breaker.observations)
            raise
        self._joined = True
        for each in reports:
            self._throttles[each["target"]].reported(each["paused"])
        for name, status in self._last.items():
            metrics.REPLICAS.set(status.processes)
            metrics.HELD.labels(name).set(status.held is not None)
            # A breaker that has changed since then must first report its own observations.
            if name in eras and self._breakers[name].era == eras[name]:
                breaker = self._breakers[name]
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
            await store.reset(tx, target)
            await acts_outbox.record(tx, act)
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
                    rows = await upkeep.waiting(tx, target, per_second)
                    await upkeep.requeue(tx, rows)
                released = len(rows)
                log.info("backlog.released", target=target, rows=released)
            await asyncio.sleep(1)


def _together(before: Observations, after: Observations) -> Observations:
    if after.healthy:
        return after
    trial = before.trial if after.trial is None else after.trial
    refused = after.refused or before.refused
    return Observations(before.healthy, before.failures + after.failures, trial, refused)
