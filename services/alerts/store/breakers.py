"""The breaker of each target, shared by all processes, and the processes that are alive.

The half-open rule is here, as SQL (`report` in breakers.sql): an open breaker whose time is over
lets one process make one trial. Its success closes the breaker for all, its failure opens it again,
and another process takes over the trial of one that falls silent.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.rules.delivery import HELD_TIMES, MAX_PAUSE_SECONDS, BreakerState
from services.alerts.store.sql import statements

ALIVE_SECONDS: Final = 15.0
TRIAL_SECONDS: Final = 15.0  # until another process takes over the trial of a silent one
PAUSED: Final = f"""coalesce(
    paused_until BETWEEN now() AND now() + interval '{MAX_PAUSE_SECONDS} s', false)"""

SQL: Final = statements(
    __file__,
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
    held: str | None = None  # what the target said when it refused us


async def join(tx: AsyncConnection, targets: Sequence[str]) -> None:
    """Create a row for each target, and delete processes that have been dead for an hour.

    A target that refused us is tried at once: whoever starts may have the corrected setting.
    """
    await tx.execute(SQL["forget_dead"])
    await tx.execute(SQL["try_refused"])
    await tx.execute(SQL["add_missing"], {"targets": list(targets)})


async def report(tx: AsyncConnection, process: UUID, reports: Sequence[Mapping[str, Any]]) -> None:
    """Report what this process observed, and that it is alive; the breakers move accordingly.

    :param reports: for each target its breaker's observations, whether it `wants_trial`, for how
        many seconds it asked to be `paused`, and the breaker's settings
    """
    await tx.execute(SQL["be_alive"], {"process": process})
    if reports:
        await tx.execute(SQL["report"], {"process": process, "reports": json.dumps(list(reports))})


async def read(tx: AsyncConnection, process: UUID) -> Mapping[str, BreakerStatus]:
    """Return the breakers by target, as this process sees them."""
    rows = await tx.execute(SQL["read"], {"process": process})
    return {target: BreakerStatus(BreakerState(state), *rest) for target, state, *rest in rows}


async def leave(tx: AsyncConnection, process: UUID) -> None:
    """Stop counting as alive, and leave a trial to another process."""
    await tx.execute(SQL["leave"], {"process": process})


async def reset(tx: AsyncConnection, target: str) -> None:
    """Close this breaker for all processes, and its incident, for an operator."""
    await tx.execute(SQL["reset"], {"target": target})
