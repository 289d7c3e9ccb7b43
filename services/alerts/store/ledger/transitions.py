"""The transitions of a delivery (docs/protocols.md): each moves a row by compare-and-set.

The two transitions of every alert, claim and record, move many rows in one statement, each row as
if alone. They first lock the rows in key order and check them again once locked, so that two
batches wait for each other but never deadlock.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.rules.delivery import (
    Claimed,
    Once,
    Outcome,
    Reason,
    RowStatus,
    State,
    Transition,
)
from services.alerts.store.sql import sql

_COPIED: Final = (
    "generation", "attempt", "attempts", "age", "event_type", "severity", "payload", "accepted_at",
    "request_id", "due_at", "resolved",
)  # fmt: skip
_ROW: Final = """
    generation, attempt, attempts, event_type, severity, payload, accepted_at, request_id, due_at,
    resolved,
    CAST(extract(epoch FROM now() - coalesce(requeued_at, created_at)) AS float) AS age,
    once_address, once_purpose, once_reference,
    CAST(extract(epoch FROM once_not_after - now()) AS float) AS window_left
"""

# The target refused us over this alert, and has accepted another since (`decide`). After the claim
# the time of that refusal is gone.
_SINGLED_OUT: Final = f"""
    reason IN ('{Reason.UNAUTHORIZED}', '{Reason.GONE}') AND EXISTS (
        SELECT FROM breaker
        WHERE breaker.target = delivery.target AND healed_at > last_attempt_at) AS singled_out
"""

# A message that comes before its row is due is a duplicate, or the queue's TTL is shorter than the
# delay. It is parked, so that duplicates do not use up attempts faster than the delays allow.
CLAIM = sql(f"""
    WITH asked AS MATERIALIZED (
        SELECT alert_id, target, position, {_SINGLED_OUT}
        FROM unnest(CAST(:alert_ids AS uuid[]), CAST(:generations AS integer[]))
            WITH ORDINALITY AS one (alert_id, asked_generation, position)
        JOIN delivery USING (alert_id)
        WHERE target = :target AND generation <= asked_generation AND attempts <= :retries
            AND once_address IS NULL
            AND (state = 'pending' AND due_at <= now()
                OR :take_over AND state = 'sending' AND lease_until < now() AND NOT recalled)
        ORDER BY alert_id
        FOR NO KEY UPDATE OF delivery
    )
    UPDATE delivery SET
        state = 'sending', attempt = attempt + 1, attempts = attempts + 1, last_attempt_at = now(),
        error = CASE WHEN state = 'sending' THEN 'the worker of the attempt died' ELSE error END,
        lease_until = now() + make_interval(secs => :lease)
    FROM asked WHERE (delivery.alert_id, delivery.target) = (asked.alert_id, asked.target)
    RETURNING position - 1 AS position, delivery.alert_id, singled_out, {_ROW}
""")

_CLAIM_ONCE = sql(f"""
    UPDATE delivery SET
        state = 'claimed', attempt = attempt + 1, attempts = attempts + 1, last_attempt_at = now(),
        lease_until = now() + make_interval(secs => :lease)
    WHERE alert_id = :alert_id AND target = :target
        AND generation <= :generation AND attempts <= :retries
        AND once_address IS NOT NULL
        AND (state = 'pending' AND due_at <= now() OR state = 'claimed' AND lease_until < now())
    RETURNING {_ROW}
""")

_LOCK = sql(f"""
    SELECT state, {_SINGLED_OUT}
    FROM delivery WHERE alert_id = :alert_id AND target = :target FOR UPDATE
""")


async def claim(
    tx: AsyncConnection,
    target: str,
    asked: Sequence[tuple[UUID, int]],
    *,
    lease: float,
    retries: int,
    take_over: bool = False,
) -> list[Claimed | None]:
    """Claim due rows and count the attempts; at-most-once rows are for `claim_once`.

    :param asked: alert ids with the generations of their messages
    :param lease: seconds
    :param take_over: also claim rows whose worker died
    :returns: in the order asked; None where the row cannot be claimed. Of several messages of one
        alert at most one gets it
    """
    found = await tx.execute(
        CLAIM,
        {
            "target": target,
            "alert_ids": [alert_id for alert_id, _ in asked],
            "generations": [generation for _, generation in asked],
            "lease": lease,
            "retries": retries,
            "take_over": take_over,
        },
    )
    claimed: list[Claimed | None] = [None] * len(asked)
    for row in found:
        claimed[row.position] = _claimed(row.alert_id, target, row, singled_out=row.singled_out)
    return claimed


async def claim_once(
    tx: AsyncConnection,
    alert_id: UUID,
    target: str,
    generation: int,
    *,
    lease: float,
    retries: int,
    asked_at: float = 0.0,
) -> tuple[Claimed | None, bool]:
    """Claim one at-most-once row.

    :param lease: seconds
    :param asked_at: `boottime` before this call: the window cannot end earlier than counted from it
    :returns: the row, and whether it was taken over from a dead worker, whose permit is to be
        returned
    """
    key = {"alert_id": alert_id, "target": target}
    before = (await tx.execute(_LOCK, key)).one_or_none()
    found = await tx.execute(
        _CLAIM_ONCE, {**key, "generation": generation, "lease": lease, "retries": retries}
    )
    row = found.one_or_none()
    if row is None or before is None:
        return None, False
    job = _claimed(alert_id, target, row, singled_out=before.singled_out)
    if job.once is not None and row.window_left is not None:
        job = replace(job, once=replace(job.once, window_ends=asked_at + row.window_left))
    return job, before.state == State.CLAIMED


def _claimed(alert_id: UUID, target: str, row: Any, *, singled_out: bool | None) -> Claimed:
    own = {name: getattr(row, name) for name in _COPIED}
    out = bool(singled_out)
    return Claimed(alert_id=alert_id, target=target, singled_out=out, once=once_of(row), **own)


def once_of(row: Any) -> Once | None:
    if row.once_address is None:
        return None
    return Once(row.once_address, row.once_purpose, row.once_reference)


_SEE = sql("""
    SELECT state, generation, attempts, coalesce(lease_until < now(), false) AS lease_over,
        once_address IS NOT NULL AS once
    FROM delivery WHERE alert_id = :alert_id AND target = :target
""")


async def see(tx: AsyncConnection, alert_id: UUID, target: str) -> RowStatus | None:
    row = (await tx.execute(_SEE, {"alert_id": alert_id, "target": target})).one_or_none()
    return None if row is None else RowStatus(State(row.state), *row[1:])


_MAY_BE_PURGED = sql("""
    SELECT EXISTS (SELECT FROM ledger_total WHERE target = :target AND purged_until >= :at)
""")


async def may_be_purged(tx: AsyncConnection, target: str, at: datetime) -> bool:
    """Return whether a row that existed at this time may have been purged since."""
    return bool(await tx.scalar(_MAY_BE_PURGED, {"target": target, "at": at}))


# The attempt is written down whether or not its outcome still counts; the row moves only by CAS.
RECORD = sql("""
    WITH made AS (
        SELECT * FROM jsonb_to_recordset(CAST(:results AS jsonb)) AS one (
            position integer, alert_id uuid, target text, attempt integer, outcome text,
            attempt_reason text, status integer, seconds real, excerpt text, error text,
            state text, reason text, refund integer, delay float)
    ), locked AS MATERIALIZED (
        SELECT alert_id, target FROM delivery
        WHERE (alert_id, target) IN (SELECT alert_id, target FROM made)
        ORDER BY alert_id, target
        FOR NO KEY UPDATE
    ), noted AS (
        INSERT INTO attempt (alert_id, target, number, outcome, reason, status, seconds, excerpt)
        SELECT alert_id, target, attempt, outcome, attempt_reason, status, seconds, excerpt
        FROM locked JOIN made USING (alert_id, target)
        ON CONFLICT DO NOTHING
    )
    UPDATE delivery SET
        state = CASE WHEN recalled AND outcome <> 'delivered' THEN 'discarded' ELSE made.state END,
        reason = CASE WHEN recalled AND outcome <> 'delivered' THEN 'answered'
            ELSE made.reason END,
        lease_until = NULL, recalled = false,
        error = CASE WHEN outcome = 'delivered' THEN delivery.error ELSE made.error END,
        attempts = attempts - refund,
        due_at = now() + make_interval(secs => delay),
        finished_at = CASE WHEN made.state = 'pending' AND NOT recalled THEN NULL ELSE now() END
    FROM locked JOIN made USING (alert_id, target)
    WHERE (delivery.alert_id, delivery.target) = (locked.alert_id, locked.target)
        AND delivery.attempt = made.attempt
        AND (delivery.state = 'sending' OR delivery.state = 'in_doubt' AND outcome = 'delivered')
    RETURNING position, delivery.state
""")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt and what it does to its row."""

    job: Claimed
    outcome: Outcome
    transition: Transition
    seconds: float
    want: int | None = None
    """Of the place of a case's message, as it was when the message was written."""


async def record(tx: AsyncConnection, attempts: Sequence[Attempt]) -> list[State | None]:
    """Write the attempts down and move the rows that are still ours.

    :returns: each row's state now, in the order given; a row that was recalled in flight is not
        tried again. None where another worker has taken over: only the history of attempts has
        changed
    """
    document = json.dumps([_document(position, one) for position, one in enumerate(attempts)])
    now: list[State | None] = [None] * len(attempts)
    for row in await tx.execute(RECORD, {"results": document}):
        now[row.position] = State(row.state)
    return now


def _document(position: int, attempt: Attempt) -> dict[str, Any]:
    job, outcome, transition = attempt.job, attempt.outcome, attempt.transition
    return {
        "position": position,
        "alert_id": str(job.alert_id),
        "target": job.target,
        "attempt": job.attempt,
        "outcome": outcome.kind,
        "attempt_reason": outcome.reason,
        "status": outcome.status,
        "seconds": attempt.seconds,
        "excerpt": outcome.excerpt,
        "error": error_text(outcome),
        "state": transition.state,
        "reason": transition.reason,
        "refund": int(transition.refund),
        "delay": transition.delay,
    }


def error_text(outcome: Outcome) -> str:
    parts = (outcome.reason, outcome.status and str(outcome.status), outcome.excerpt)
    return " ".join(part for part in parts if part)


_MOVE = sql("""
    UPDATE delivery SET
        state = :state, reason = coalesce(:reason, reason),
        attempts = attempts - CAST(:refund AS integer),
        lease_until = CASE WHEN :state = 'sending' THEN now() + make_interval(secs => :seconds) END,
        due_at = CASE WHEN :state = 'pending' THEN now() + make_interval(secs => :seconds)
                      ELSE due_at END,
        finished_at = CASE WHEN :state IN ('pending', 'sending') THEN NULL ELSE now() END
    WHERE alert_id = :alert_id AND target = :target AND attempt = :attempt AND state = :before
    RETURNING 1 AS matched
""")


async def move(
    tx: AsyncConnection,
    job: Claimed,
    before: State,
    after: State,
    *,
    reason: Reason | None = None,
    seconds: float = 0.0,
    refund: bool = False,
) -> bool:
    """Move a row of which nothing was sent from `before` to `after`, if it is still ours.

    :param seconds: of the lease when `after` is sending; until the row is due when it is pending
    :param refund: take back the attempt that the claim counted
    :returns: False when another worker has taken over; nothing has changed
    """
    found = await tx.execute(
        _MOVE,
        {
            "alert_id": job.alert_id,
            "target": job.target,
            "attempt": job.attempt,
            "before": before,
            "state": after,
            "reason": reason,
            "seconds": seconds,
            "refund": int(refund),
        },
    )
    return found.one_or_none() is not None


_ENDED: Final = """
    alert_id, target, attempt, event_type, error, once_address, once_purpose, once_reference
"""
_EXHAUST = sql(f"""
    UPDATE delivery SET
        state = 'failed', reason = 'exhausted', lease_until = NULL, finished_at = now(),
        error = coalesce(error, 'the worker of every attempt died')
    WHERE alert_id = :alert_id AND target = :target
        AND generation <= :generation AND attempts > :retries AND NOT recalled
        AND (state = 'pending'
             OR lease_until < now() AND state = (
                 CASE WHEN once_address IS NULL THEN 'sending' ELSE 'claimed' END))
    RETURNING {_ENDED}
""")
_MARK_IN_DOUBT = sql(f"""
    UPDATE delivery SET
        state = 'in_doubt', reason = 'crashed', lease_until = NULL, finished_at = now(),
        error = 'the worker died between handing over and recording it'
    WHERE alert_id = :alert_id AND target = :target
        AND once_address IS NOT NULL AND state = 'sending' AND lease_until < now()
    RETURNING {_ENDED}
""")


@dataclass(frozen=True, slots=True)
class Ended:
    """A row that has ended, as its notifications need it."""

    alert_id: UUID
    target: str
    attempt: int
    event_type: str
    error: str | None
    once: Once | None


async def exhaust(
    tx: AsyncConnection, alert_id: UUID, target: str, generation: int, retries: int
) -> Ended | None:
    """Fail a row without attempts left, whose last worker died.

    :returns: None when it is in another state by now
    """
    key = {"alert_id": alert_id, "target": target}
    found = await tx.execute(_EXHAUST, {**key, "generation": generation, "retries": retries})
    return next(map(ended, found), None)


async def mark_in_doubt(tx: AsyncConnection, alert_id: UUID, target: str) -> Ended | None:
    """End a mail whose worker died after it may have written the terminator.

    :returns: None when it is in another state by now
    """
    found = await tx.execute(_MARK_IN_DOUBT, {"alert_id": alert_id, "target": target})
    return next(map(ended, found), None)


def ended(row: Any) -> Ended:
    return Ended(row.alert_id, row.target, row.attempt, row.event_type, row.error, once_of(row))
