"""The steps of one delivery (docs/protocols.md): each moves one row, by compare and set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.alert import Claimed, Decision, Once, Outcome, Reason, Seen, State

_timestamptz = sa.DateTime(timezone=True)

_ROW: Final = """
    turn, attempt, spent, event_type, severity, payload, accepted_at, request_id,
    CAST(extract(epoch FROM now() - accepted_at) AS float) AS age,
    once_address, once_purpose, once_reference
"""
_ROW_TYPES: Final[Mapping[str, Any]] = {
    "turn": sa.Integer,
    "attempt": sa.Integer,
    "spent": sa.Integer,
    "event_type": sa.Text,
    "severity": sa.Text,
    "payload": JSONB,
    "accepted_at": _timestamptz,
    "request_id": sa.Text,
    "age": sa.Float,
    "once_address": sa.Text,
    "once_purpose": sa.Text,
    "once_reference": sa.Text,
}
_KEY: Final = (sa.bindparam("alert_id", type_=sa.Uuid), sa.bindparam("target", type_=sa.Text))

# A copy that comes before its row is due is a twin's, or the queue's TTL is shorter than the
# delay: it is parked, so that twins do not use up the attempts faster than the delays allow.
_CLAIM = (
    sa.text(f"""
    UPDATE delivery SET
        state = 'sending', attempt = attempt + 1, spent = spent + 1, last_attempt_at = now(),
        error = CASE WHEN state = 'sending' THEN 'the worker of the attempt died' ELSE error END,
        lease_until = now() + make_interval(secs => :lease)
    WHERE alert_id = :alert_id AND target = :target AND turn <= :turn AND spent <= :retries
        AND once_address IS NULL
        AND (state = 'pending' AND due_at <= now() OR state = 'sending' AND lease_until < now())
    RETURNING {_ROW}
""")
    .bindparams(*_KEY, sa.bindparam("lease", type_=sa.Float))
    .columns(**_ROW_TYPES)
)

_CLAIM_ONCE = (
    sa.text(f"""
    UPDATE delivery SET
        state = 'claimed', attempt = attempt + 1, spent = spent + 1, last_attempt_at = now(),
        lease_until = now() + make_interval(secs => :lease)
    WHERE alert_id = :alert_id AND target = :target AND turn <= :turn AND spent <= :retries
        AND once_address IS NOT NULL
        AND (state = 'pending' AND due_at <= now() OR state = 'claimed' AND lease_until < now())
    RETURNING {_ROW}
""")
    .bindparams(*_KEY, sa.bindparam("lease", type_=sa.Float))
    .columns(**_ROW_TYPES)
)

_LOCK = sa.text("""
    SELECT state FROM delivery WHERE alert_id = :alert_id AND target = :target FOR UPDATE
""").bindparams(*_KEY)


async def claim(
    tx: AsyncConnection, alert_id: UUID, target: str, turn: int, *, lease: float, retries: int
) -> Claimed | None:
    """Make a due or abandoned row ours and count the attempt; None when it is not to be had.

    A message that may leave only once is none of this one's: `claim_once`.
    """
    found = await tx.execute(
        _CLAIM,
        {"alert_id": alert_id, "target": target, "turn": turn, "lease": lease, "retries": retries},
    )
    row = found.one_or_none()
    return None if row is None else _claimed(alert_id, target, row)


async def claim_once(
    tx: AsyncConnection, alert_id: UUID, target: str, turn: int, *, lease: float, retries: int
) -> tuple[Claimed | None, bool]:
    """Claim for protocol B.

    :returns: the row, and whether it was taken over from a worker whose permit is to be voided
    """
    key = {"alert_id": alert_id, "target": target}
    before = (await tx.execute(_LOCK, key)).scalar_one_or_none()
    found = await tx.execute(_CLAIM_ONCE, {**key, "turn": turn, "lease": lease, "retries": retries})
    row = found.one_or_none()
    if row is None:
        return None, False
    return _claimed(alert_id, target, row), before == State.CLAIMED


def _claimed(alert_id: UUID, target: str, row: Any) -> Claimed:
    return Claimed(
        alert_id=alert_id,
        target=target,
        turn=row.turn,
        attempt=row.attempt,
        spent=row.spent,
        age=row.age,
        event_type=row.event_type,
        severity=row.severity,
        payload=row.payload,
        accepted_at=row.accepted_at,
        request_id=row.request_id,
        once=once_of(row),
    )


def once_of(row: Any) -> Once | None:
    if row.once_address is None:
        return None
    return Once(row.once_address, row.once_purpose, row.once_reference)


_SEE = (
    sa.text("""
    SELECT state, turn, spent, coalesce(lease_until < now(), false) AS lease_over,
        once_address IS NOT NULL AS once
    FROM delivery WHERE alert_id = :alert_id AND target = :target
""")
    .bindparams(*_KEY)
    .columns(
        state=sa.Text, turn=sa.Integer, spent=sa.Integer, lease_over=sa.Boolean, once=sa.Boolean
    )
)


async def see(tx: AsyncConnection, alert_id: UUID, target: str) -> Seen | None:
    row = (await tx.execute(_SEE, {"alert_id": alert_id, "target": target})).one_or_none()
    return None if row is None else Seen(State(row.state), *row[1:])


# The attempt is history whether or not its result still counts; the row moves only by CAS.
_SETTLE = (
    sa.text("""
    WITH noted AS (
        INSERT INTO attempt (alert_id, target, number, outcome, reason, status, seconds, excerpt)
        SELECT alert_id, target, :attempt, :outcome, :told, CAST(:status AS integer),
            :seconds, :excerpt
        FROM delivery WHERE alert_id = :alert_id AND target = :target
        ON CONFLICT DO NOTHING
    )
    UPDATE delivery SET
        state = :state, reason = :reason, lease_until = NULL,
        error = CASE WHEN :outcome = 'delivered' THEN error ELSE :error END,
        spent = spent - CAST(:refund AS integer),
        due_at = now() + make_interval(secs => :delay),
        finished_at = CASE WHEN :state = 'pending' THEN NULL ELSE now() END
    WHERE alert_id = :alert_id AND target = :target AND attempt = :attempt
        AND (state = 'sending' OR state = 'in_doubt' AND :outcome = 'delivered')
    RETURNING 1 AS matched
""")
    .bindparams(
        *_KEY,
        *(
            sa.bindparam(name, type_=sa.Text)
            for name in ("outcome", "told", "excerpt", "state", "reason", "error")
        ),
        *(sa.bindparam(name, type_=sa.Integer) for name in ("attempt", "status", "refund")),
        *(sa.bindparam(name, type_=sa.Float) for name in ("seconds", "delay")),
    )
    .columns(matched=sa.Integer)
)


async def settle(
    tx: AsyncConnection, job: Claimed, outcome: Outcome, decision: Decision, seconds: float
) -> bool:
    """Write the attempt down and move the row, if it is still ours.

    :returns: False when another worker has taken over: nothing but the history has changed
    """
    found = await tx.execute(
        _SETTLE,
        {
            "alert_id": job.alert_id,
            "target": job.target,
            "attempt": job.attempt,
            "outcome": outcome.kind,
            "told": outcome.reason,
            "status": outcome.status,
            "seconds": seconds,
            "excerpt": outcome.excerpt,
            "error": error_text(outcome),
            "state": decision.state,
            "reason": decision.reason,
            "refund": 0 if decision.spend else 1,
            "delay": decision.delay,
        },
    )
    return found.one_or_none() is not None


def error_text(outcome: Outcome) -> str:
    parts = (outcome.reason, outcome.status and str(outcome.status), outcome.excerpt)
    return " ".join(part for part in parts if part)


_MOVE = (
    sa.text("""
    UPDATE delivery SET
        state = :state, reason = coalesce(:reason, reason),
        spent = spent - CAST(:refund AS integer),
        lease_until = CASE WHEN :state = 'sending' THEN now() + make_interval(secs => :seconds) END,
        due_at = CASE WHEN :state = 'pending' THEN now() + make_interval(secs => :seconds)
                      ELSE due_at END,
        finished_at = CASE WHEN :state IN ('pending', 'sending') THEN NULL ELSE now() END
    WHERE alert_id = :alert_id AND target = :target AND attempt = :attempt AND state = :before
    RETURNING 1 AS matched
""")
    .bindparams(
        *_KEY,
        *(sa.bindparam(name, type_=sa.Text) for name in ("state", "reason", "before")),
        *(sa.bindparam(name, type_=sa.Integer) for name in ("attempt", "refund")),
        sa.bindparam("seconds", type_=sa.Float),
    )
    .columns(matched=sa.Integer)
)


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
    """CAS(before, attempt) → after, where nothing was sent.

    :param seconds: of the lease, or until it is due
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


_ENDED: Final = "attempt, event_type, error, once_address, once_purpose, once_reference"
_ENDED_TYPES: Final[Mapping[str, Any]] = {
    "attempt": sa.Integer,
    "event_type": sa.Text,
    "error": sa.Text,
    "once_address": sa.Text,
    "once_purpose": sa.Text,
    "once_reference": sa.Text,
}

_EXHAUST = (
    sa.text(f"""
    UPDATE delivery SET
        state = 'failed', reason = 'exhausted', lease_until = NULL, finished_at = now(),
        error = coalesce(error, 'the worker of every attempt died')
    WHERE alert_id = :alert_id AND target = :target AND turn <= :turn AND spent > :retries
        AND (state = 'pending'
             OR lease_until < now() AND state = (
                 CASE WHEN once_address IS NULL THEN 'sending' ELSE 'claimed' END))
    RETURNING {_ENDED}
""")
    .bindparams(*_KEY)
    .columns(**_ENDED_TYPES)
)
_DOUBT = (
    sa.text(f"""
    UPDATE delivery SET
        state = 'in_doubt', reason = 'crashed', lease_until = NULL, finished_at = now(),
        error = 'the worker died between handing over and recording it'
    WHERE alert_id = :alert_id AND target = :target
        AND once_address IS NOT NULL AND state = 'sending' AND lease_until < now()
    RETURNING {_ENDED}
""")
    .bindparams(*_KEY)
    .columns(**_ENDED_TYPES)
)


@dataclass(frozen=True, slots=True)
class Ended:
    """A row that ended without an attempt of ours."""

    alert_id: UUID
    target: str
    attempt: int
    event_type: str
    error: str | None
    once: Once | None


async def exhaust(
    tx: AsyncConnection, alert_id: UUID, target: str, turn: int, retries: int
) -> Ended | None:
    """Fail a row whose attempts were all used up, the last by a worker that died."""
    found = await tx.execute(
        _EXHAUST, {"alert_id": alert_id, "target": target, "turn": turn, "retries": retries}
    )
    return _ended_by(alert_id, target, found.one_or_none())


async def doubt(tx: AsyncConnection, alert_id: UUID, target: str) -> Ended | None:
    """Give up on a mail whose worker died with the dot perhaps out."""
    found = await tx.execute(_DOUBT, {"alert_id": alert_id, "target": target})
    return _ended_by(alert_id, target, found.one_or_none())


def _ended_by(alert_id: UUID, target: str, row: Any) -> Ended | None:
    if row is None:
        return None
    return Ended(alert_id, target, row.attempt, row.event_type, row.error, once_of(row))


def ended(row: Any) -> Ended:
    return Ended(row.alert_id, row.target, row.attempt, row.event_type, row.error, once_of(row))
