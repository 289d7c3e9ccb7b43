"""Where every process writes how its breakers stand, and what all of them read.

A breaker lives in one process. What must outlive it, or hold for all replicas, is in the
database: since when nothing has got through to a target, how many share its rate, a reset by hand.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db, logs
from services.alerts import metrics
from services.alerts.alert import BreakerState
from services.alerts.breaker import Breaker
from services.alerts.store import breakers as store
from services.alerts.store.breakers import SAID_SECONDS, Stand
from services.alerts.valve import Valve

log = logs.get_logger(__name__)

LOOK_SECONDS = 1.0  # until a reset by hand has reached every process
# The worst first: what is shown of a target whose breakers differ.
_WORST = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED)


class Board:
    def __init__(
        self, engine: AsyncEngine, breakers: Mapping[str, Breaker], valves: Mapping[str, Valve]
    ) -> None:
        self._engine = engine
        self._breakers = breakers
        self._valves = valves
        self._process: UUID = uuid4()
        self._successes: dict[str, int] = {}  # as last said
        self._said: list[Any] = []
        self._say_at = 0.0
        self._reset: dict[str, datetime] = {}  # as last done

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Leave the board at the end: a process that is gone has no open breaker."""
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # away: it is taken for dead within seconds
                async with self._engine.begin() as tx:
                    await store.leave(tx, self._process)

    async def run(self) -> None:
        while True:
            try:
                await self._do_resets()
                await self._say()
            except Exception as error:
                if not db.may_pass(error):
                    raise
                log.warning("board.database_unavailable", error=type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def _say(self) -> None:
        stands = [self._stand(name) for name in self._breakers]
        said = [(stand.state, stand.failures, stand.paused) for stand in stands]
        if said == self._said and monotonic() < self._say_at:
            return
        successes = {name: breaker.successes for name, breaker in self._breakers.items()}
        async with self._engine.begin() as tx:
            alive = await store.say(tx, self._process, stands)
        self._said, self._successes, self._say_at = said, successes, monotonic() + SAID_SECONDS
        metrics.REPLICAS.set(alive)
        for valve in self._valves.values():
            valve.replicas = alive

    def _stand(self, name: str) -> Stand:
        breaker = self._breakers[name]
        return Stand(
            name,
            breaker.state,
            breaker.failures,
            breaker.seconds_to_trial,
            paused=self._valves[name].seconds_shut > 0,
            healed=breaker.successes > self._successes.get(name, 0),
        )

    async def _do_resets(self) -> None:
        async with self._engine.connect() as tx:
            asked = await store.resets(tx, self._process)
        for target, at in asked.items():
            if self._reset.get(target) != at and target in self._breakers:
                self._close(target)
            self._reset[target] = at

    def _close(self, target: str) -> None:
        self._breakers[target].reset()
        self._valves[target].release()

    async def reset(self, target: str, operator: str | None) -> None:
        """Close a breaker by hand: here at once, in the other processes within a second or two."""
        async with self._engine.begin() as tx:
            await store.reset(tx, target, operator)
        self._close(target)
        metrics.RESETS.labels(target).inc()
        log.warning("breaker.reset", target=target, operator=operator)

    async def now(self) -> dict[str, dict[str, Any]]:
        """Show the worst that any process says of each target; with the database away, our word."""
        stands = {name: [self._stand(name)] for name in self._breakers}
        since: dict[str, datetime] = {}
        try:
            async with self._engine.connect() as tx:
                for other in await store.of_others(tx, self._process):
                    if other.target in stands:
                        stands[other.target].append(other)
                since = await store.troubled_since(tx)
        except Exception as error:
            if not db.may_pass(error):
                raise
        return {name: _shown(each, since.get(name)) for name, each in stands.items()}


def _shown(stands: list[Stand], since: datetime | None) -> dict[str, Any]:
    state = next(state for state in _WORST if any(each.state is state for each in stands))
    trials = [each.seconds_to_trial for each in stands if each.state is BreakerState.OPEN]
    trial_at = datetime.now(UTC) + timedelta(seconds=min(trials)) if trials else None
    return {
        "state": state,
        "failures": max(each.failures for each in stands),
        "next_trial_at": trial_at.isoformat() if trial_at else None,
        "open_since": since.isoformat() if since and state is not BreakerState.CLOSED else None,
        "paused": any(each.paused for each in stands),
        "processes": len(stands),
    }
