"""The breaker of each target, shared by all processes, and the processes that are alive.

The half-open rule is here, as SQL (`report` in breakers.sql): an open breaker whose time is over
lets one process make one trial. Its success closes the breaker for all, its failure opens it again,
and another process takes over the trial of one that falls silent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.rules.delivery import HELD_TIMES, MAX_PAUSE_SECONDS, BreakerState

ALIVE_SECONDS: Final = 15.0
TRIAL_SECONDS: Final = 15.0  # until another process takes over the trial of a silent one
PAUSED: Final = f"""coalesce(
    paused_until BETWEEN now() AND now() + interval '{MAX_PAUSE_SECONDS} s', false)"""

run = Queries(
    __file__,
    json=["reports"],
    held_times=HELD_TIMES,
    trial_seconds=TRIAL_SECONDS,
    paused=PAUSED,
    alive_seconds=ALIVE_SECONDS,
)
SHUT: Final = f"(state <> 'closed' OR {PAUSED})"
"""No process sends anything to the target now."""


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """The state of a target's breaker, as every process sees it."""

    state: BreakerState
    failures: int
    seconds_to_trial: float
    mine: bool  # the trial belongs to the asking process
    paused: float  # seconds left of a pause
    since: datetime | None  # since when nothing has been delivered, or the target refuses us
    processes: int
    together: bool = False  # each of them reads several works in one message
    held: str | None = None  # what the target said when it refused us
    title: str | None = None  # of a subscription, whose name says nothing


async def read(tx: AsyncConnection, process: UUID) -> Mapping[str, BreakerStatus]:
    """Return the breakers by target, as this process sees them."""
    rows = await run(tx, "read", process=process)
    return {target: BreakerStatus(BreakerState(state), *rest) for target, state, *rest in rows}
