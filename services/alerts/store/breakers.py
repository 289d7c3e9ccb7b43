"""The breaker of each target, shared by all processes, and the processes that are alive.

The half-open rule is here, as SQL (`_REPORT`): an open breaker whose time is over lets one process
make one trial. Its success closes the breaker for all, its failure opens it again, and the trial of
a process that is not heard of becomes another's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.rules.delivery import HELD_TIMES, MAX_PAUSE_SECONDS, BreakerState
from services.alerts.store.sql import sql

ALIVE_SECONDS: Final = 15.0
TRIAL_SECONDS: Final = 15.0  # until the trial of a process that is not heard of is another's
PAUSED: Final = f"""coalesce(
    paused_until BETWEEN now() AND now() + interval '{MAX_PAUSE_SECONDS} s', false)"""
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


_BE_ALIVE: Final = sql("""
    INSERT INTO replica (process, numbers) VALUES (:process, true) ON CONFLICT (process) DO UPDATE
    SET seen_at = now() WHERE replica.seen_at NOT BETWEEN now() - interval '5 s' AND now()
""")
# Locked in order, so that two processes wait for each other but never deadlock. A time further off
# than any that is ever set means that the clock was set back. Whether a refusal is the target's
# or one alert's the next alert tells, so its first trial is at once.
_REPORT: Final = sql(f"""
    WITH report AS (
        SELECT * FROM jsonb_to_recordset(CAST(:reports AS jsonb)) AS t(
            target text, healthy boolean, failures integer, trial boolean, wants_trial boolean,
            refused text, paused float, fail_max integer, reset_timeout float)
    ), locked AS MATERIALIZED (
        SELECT * FROM breaker WHERE target IN (SELECT target FROM report) ORDER BY target FOR UPDATE
    ), counted AS (
        SELECT *, state = 'half_open' AND trial_by = :process AS mine,
            next_trial_at NOT BETWEEN now()
                AND now() + make_interval(
                    secs => greatest({HELD_TIMES} * reset_timeout, {TRIAL_SECONDS})) AS due,
            CASE WHEN healthy THEN report.failures
                ELSE locked.failures + report.failures END AS number
        FROM locked JOIN report USING (target)
    ), moved AS (
        SELECT *, CASE
            WHEN refused IS NOT NULL AND (mine OR state = 'closed') THEN 'open'
            WHEN mine AND trial THEN 'closed'
            WHEN mine AND NOT trial OR state = 'closed' AND number >= fail_max THEN 'open'
            WHEN wants_trial AND state <> 'closed' AND (due OR mine) THEN 'trial'
            ELSE 'same' END AS move
        FROM counted
    ), healed AS (
        DELETE FROM incident USING moved
        WHERE kind = 'breaker' AND incident.target = moved.target AND healthy AND move <> 'open'
            AND (held IS NULL OR move = 'closed')
    ), unhealthy AS (
        INSERT INTO incident AS open (kind, target, number)
        SELECT 'breaker', target, CAST(refused IS NOT NULL AS integer) FROM moved
        WHERE move = 'open' OR refused IS NOT NULL OR paused > 0 AND NOT healthy ORDER BY target
        ON CONFLICT (kind, target) DO UPDATE
        SET number = 1, since = now(), notified_at = NULL, send_failed_at = NULL, send_failures = 0
        WHERE excluded.number > open.number
    )
    UPDATE breaker SET
        state = CASE move WHEN 'same' THEN moved.state WHEN 'trial' THEN 'half_open' ELSE move END,
        failures = CASE WHEN move = 'closed' THEN 0
            WHEN moved.state = 'closed' THEN number ELSE breaker.failures END,
        next_trial_at = CASE move WHEN 'same' THEN moved.next_trial_at
            WHEN 'open' THEN now() + make_interval(secs => CASE
                WHEN coalesce(refused, moved.held) IS NULL THEN reset_timeout
                WHEN moved.held IS NULL OR trial THEN 0
                ELSE {HELD_TIMES} * reset_timeout END)
            WHEN 'trial' THEN now() + interval '{TRIAL_SECONDS} s' END,
        trial_by = CASE move WHEN 'same' THEN moved.trial_by WHEN 'trial' THEN :process END,
        paused_until = CASE WHEN paused > 0
            THEN greatest(moved.paused_until, now() + make_interval(secs => paused))
            ELSE moved.paused_until END,
        held = CASE move WHEN 'closed' THEN NULL ELSE coalesce(refused, moved.held) END,
        healed_at = CASE WHEN mine AND trial AND moved.held IS NOT NULL THEN now()
            ELSE moved.healed_at END
    FROM moved WHERE breaker.target = moved.target
""")
_READ: Final = sql(f"""
    SELECT breaker.target, state, failures,
        greatest(0, CAST(extract(epoch FROM next_trial_at - now()) AS float)),
        coalesce(state = 'half_open' AND trial_by = :process, false),
        CASE WHEN {PAUSED} THEN CAST(extract(epoch FROM paused_until - now()) AS float)
            ELSE 0 END, since,
        (SELECT count(*) FROM replica WHERE seen_at BETWEEN
            now() - interval '{ALIVE_SECONDS} s' AND now() + interval '{ALIVE_SECONDS} s'), held
    FROM breaker LEFT JOIN incident ON incident.target = breaker.target AND kind = 'breaker'
""")


async def join(tx: AsyncConnection, targets: Sequence[str]) -> None:
    """Create a row for each target, and delete processes that have been dead for an hour.

    A target that refused us is tried at once: whoever starts may have the corrected setting.
    """
    await tx.execute(sql("DELETE FROM replica WHERE seen_at < now() - interval '1 hour'"))
    await tx.execute(
        sql("""
            UPDATE breaker SET next_trial_at = now() WHERE target IN (
                SELECT target FROM breaker WHERE held IS NOT NULL AND state = 'open'
                ORDER BY target FOR UPDATE)
        """)
    )
    await tx.execute(
        sql("""
            INSERT INTO breaker (target) SELECT unnest(CAST(:targets AS text[])) AS target
            ORDER BY target ON CONFLICT DO NOTHING
        """),
        {"targets": list(targets)},
    )


async def report(tx: AsyncConnection, process: UUID, reports: Sequence[Mapping[str, Any]]) -> None:
    """Report what this process observed, and that it is alive; the breakers move accordingly.

    :param reports: for each target its breaker's observations, whether it `wants_trial`, for how
        many seconds it asked to be `paused`, and the breaker's settings
    """
    await tx.execute(_BE_ALIVE, {"process": process})
    if reports:
        await tx.execute(_REPORT, {"process": process, "reports": json.dumps(list(reports))})


async def read(tx: AsyncConnection, process: UUID) -> Mapping[str, BreakerStatus]:
    """Return the breakers by target, as this process sees them."""
    rows = await tx.execute(_READ, {"process": process})
    return {target: BreakerStatus(BreakerState(state), *rest) for target, state, *rest in rows}


_LEAVE: Final = sql("""
    WITH trial AS (UPDATE breaker SET state = 'open', next_trial_at = now(), trial_by = NULL
        WHERE trial_by = :process)
    DELETE FROM replica WHERE process = :process
""")
_RESET: Final = sql("""
    WITH over AS (DELETE FROM incident WHERE kind = 'breaker' AND target = :target)
    UPDATE breaker SET state = 'closed', failures = 0, next_trial_at = NULL, trial_by = NULL,
        paused_until = NULL, held = NULL
    WHERE target = :target
""")


async def leave(tx: AsyncConnection, process: UUID) -> None:
    """Stop counting as alive, and leave a trial to another process."""
    await tx.execute(_LEAVE, {"process": process})


async def reset(tx: AsyncConnection, target: str) -> None:
    """Close this breaker for all processes and its incident, because an operator says so."""
    await tx.execute(_RESET, {"target": target})
