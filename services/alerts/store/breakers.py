"""How the breakers of every process stand, for all to read."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.alert import BreakerState

_timestamptz = sa.DateTime(timezone=True)

SAID_SECONDS: Final = 5.0  # a process says so at least this often
ALIVE: Final = f"seen_at > now() - make_interval(secs => {3 * SAID_SECONDS})"
_FORGOTTEN: Final = "seen_at < now() - interval '1 hour'"


@dataclass(frozen=True, slots=True)
class Stand:
    """How one breaker of one process stands."""

    target: str
    state: BreakerState
    failures: int
    seconds_to_trial: float
    paused: bool
    healed: bool  # a call got through since this was last said


# A target is in trouble from the first opening on until a call gets through, in whatever process:
# one that is started anew begins with a closed breaker, and has healed nothing.
_SAY: Final = (
    sa.text(f"""
    WITH said AS (
        SELECT * FROM jsonb_to_recordset(CAST(:stands AS jsonb)) AS s(
            target text, state text, failures integer, seconds_to_trial float, paused boolean,
            healed boolean)
    ), healed AS (
        DELETE FROM trouble USING said
        WHERE trouble.kind = 'breaker' AND trouble.target = said.target AND said.healed
    ), sick AS (
        INSERT INTO trouble (kind, target)
        SELECT 'breaker', target FROM said WHERE state <> 'closed' AND NOT healed ORDER BY target
        ON CONFLICT DO NOTHING
    ), forgotten AS (
        DELETE FROM breaker WHERE {_FORGOTTEN}
    ), written AS (
        INSERT INTO breaker (target, process, state, failures, next_trial_at, paused)
        SELECT target, :process, state, failures,
            CASE WHEN state = 'open' THEN now() + make_interval(secs => seconds_to_trial) END,
            paused
        FROM said
        ON CONFLICT (target, process) DO UPDATE SET
            state = excluded.state, failures = excluded.failures, paused = excluded.paused,
            next_trial_at = excluded.next_trial_at, seen_at = now()
    )
    SELECT count(DISTINCT process) AS others FROM breaker WHERE {ALIVE} AND process <> :process
""")
    .bindparams(sa.bindparam("process", type_=sa.Uuid), sa.bindparam("stands", type_=sa.Text))
    .columns(others=sa.BigInteger)
)


async def say(tx: AsyncConnection, process: UUID, stands: Sequence[Stand]) -> int:
    """Write how this process's breakers stand, and what follows for the targets' trouble.

    :returns: how many processes are alive, this one included
    """
    document = json.dumps([asdict(stand) for stand in stands])
    found = await tx.execute(_SAY, {"process": process, "stands": document})
    return 1 + int(found.scalar_one())


async def leave(tx: AsyncConnection, process: UUID) -> None:
    """Be counted as alive no longer."""
    await tx.execute(_LEAVE, {"process": process})


_LEAVE: Final = sa.text("DELETE FROM breaker WHERE process = :process").bindparams(
    sa.bindparam("process", type_=sa.Uuid)
)

_RESET: Final = sa.text("""
    WITH over AS (DELETE FROM trouble WHERE kind = 'breaker' AND target = :target)
    UPDATE breaker SET reset_at = now(), reset_by = :operator WHERE target = :target
""").bindparams(
    *(sa.bindparam(name, type_=sa.Text) for name in ("target", "operator")),
)
_RESETS: Final = (
    sa.text(
        "SELECT target, reset_at FROM breaker WHERE process = :process AND reset_at IS NOT NULL"
    )
    .bindparams(sa.bindparam("process", type_=sa.Uuid))
    .columns(target=sa.Text, reset_at=_timestamptz)
)


async def reset(tx: AsyncConnection, target: str, operator: str | None) -> None:
    """Ask every process to close this breaker; a person says that its trouble is over."""
    await tx.execute(_RESET, {"target": target, "operator": operator})


async def resets(tx: AsyncConnection, process: UUID) -> dict[str, datetime]:
    """Return when this process was last asked to close which breaker."""
    return {row.target: row.reset_at for row in await tx.execute(_RESETS, {"process": process})}


_OTHERS: Final = (
    sa.text(f"""
    SELECT target, state, failures,
        CAST(greatest(extract(epoch FROM next_trial_at - now()), 0) AS float) AS seconds_to_trial,
        paused
    FROM breaker WHERE {ALIVE} AND process <> :process
""")
    .bindparams(sa.bindparam("process", type_=sa.Uuid))
    .columns(
        target=sa.Text,
        state=sa.Text,
        failures=sa.Integer,
        seconds_to_trial=sa.Float,
        paused=sa.Boolean,
    )
)
_SINCE: Final = sa.text("SELECT target, since FROM trouble WHERE kind = 'breaker'").columns(
    target=sa.Text, since=_timestamptz
)


async def of_others(tx: AsyncConnection, process: UUID) -> list[Stand]:
    """Return how the breakers of all other processes stand."""
    return [
        Stand(
            row.target,
            BreakerState(row.state),
            row.failures,
            row.seconds_to_trial,
            row.paused,
            healed=False,
        )
        for row in await tx.execute(_OTHERS, {"process": process})
    ]


async def troubled_since(tx: AsyncConnection) -> dict[str, datetime]:
    """Return since when nothing has got through to which target."""
    return {row.target: row.since for row in await tx.execute(_SINCE)}
