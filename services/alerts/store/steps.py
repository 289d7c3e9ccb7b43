"""The steps of a delivery (docs/protocols.md): each moves a row by compare and set.

The two that every alert takes move many rows in one statement, each row as if alone. The rows are
locked in the order of their keys first, and looked at again once locked: two batches wait for each
other, and never in a circle.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.alert import Claimed, Decision, Once, Outcome, Reason, Seen, State

_timestamptz = sa.DateTime(timezone=True)

_ROW: Final = """
    turn, attempt, spent, event_type, severity, payload, accepted_at, request_id,
    CAST(extract(epoch FROM now() - coalesce(requeued_at, created_at)) AS float) AS age,
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
CLAIM = (
    sa.text(f"""
    WITH asked AS MATERIALIZED (
        SELECT alert_id, target, place
        FROM unnest(CAST(:alert_ids AS uuid[]), CAST(:turns AS integer[]))
            WITH ORDINALITY AS one (alert_id, asked_turn, place)
        JOIN delivery USING (alert_id)
        WHERE target = :target AND turn <= asked_turn AND spent <= :retries
            AND once_address IS NULL
            AND (state = 'pending' AND due_at <= now()
                OR :take_over AND state = 'sending' AND lease_until < now())
        ORDER BY alert_id
        FOR NO KEY UPDATE OF delivery
    )
    UPDATE delivery SET
        state = 'sending', attempt = attempt + 1, spent = spent + 1, last_attempt_at = now(),
        error = CASE WHEN state = 'sending' THEN 'the worker of the attempt died' ELSE error END,
        lease_until = now() + make_interval(secs => :lease)
    FROM asked WHERE (delivery.alert_id, delivery.target) = (asked.alert_id, asked.target)
    RETURNING place - 1 AS place, delivery.alert_id, {_ROW}
""")
    .bindparams(
        sa.bindparam("alert_ids", type_=ARRAY(sa.Uuid)),
        sa.bindparam("turns", type_=ARRAY(sa.Integer)),
        sa.bindparam("target", type_=sa.Text),
        sa.bindparam("lease", type_=sa.Float),
        sa.bindparam("take_over", type_=sa.Boolean),
    )
    .columns(place=sa.BigInteger, alert_id=sa.Uuid, **_ROW_TYPES)
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
    tx: AsyncConnection,
    target: str,
    asked: Sequence[tuple[UUID, int]],
    *,
    lease: float,
    retries: int,
    take_over: bool = False,
) -> list[Claimed | None]:
    """Make due rows ours and count their attempts.

    A message that may leave only once is none of these: `claim_once`.

    :param asked: alerts with the turns of the copies in hand
    :param take_over: also those whose worker died
    :returns: for each, None when it is not to be had; of copies of one alert at most one has it
    """
    found = await tx.execute(
        CLAIM,
        {
            "target": target,
            "alert_ids": [alert_id for alert_id, _ in asked],
            "turns": [turn for _, turn in asked],
            "lease": lease,
            "retries": retries,
            "take_over": take_over,
        },
    )
    claimed: list[Claimed | None] = [None] * len(asked)
    for row in found:
        claimed[row.place] = _claimed(row.alert_id, target, row)
    return claimed


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
SETTLE = (
    sa.text("""
    WITH tried AS (
        SELECT * FROM jsonb_to_recordset(CAST(:tried AS jsonb)) AS one (
            place integer, alert_id uuid, target text, attempt integer, outcome text, told text,
            status integer, seconds real, excerpt text, error text, state text, reason text,
            refund integer, delay float)
    ), locked AS MATERIALIZED (
        SELECT alert_id, target FROM delivery
        WHERE (alert_id, target) IN (SELECT alert_id, target FROM tried)
        ORDER BY alert_id, target
        FOR NO KEY UPDATE
    ), noted AS (
        INSERT INTO attempt (alert_id, target, number, outcome, reason, status, seconds, excerpt)
        SELECT alert_id, target, attempt, outcome, told, status, seconds, excerpt
        FROM locked JOIN tried USING (alert_id, target)
        ON CONFLICT DO NOTHING
    )
    UPDATE delivery SET
        state = tried.state, reason = tried.reason, lease_until = NULL,
        error = CASE WHEN outcome = 'delivered' THEN delivery.error ELSE tried.error END,
        spent = spent - refund,
        due_at = now() + make_interval(secs => delay),
        finished_at = CASE WHEN tried.state = 'pending' THEN NULL ELSE now() END
    FROM locked JOIN tried USING (alert_id, target)
    WHERE (delivery.alert_id, delivery.target) = (locked.alert_id, locked.target)
        AND delivery.attempt = tried.attempt
        AND (delivery.state = 'sending' OR delivery.state = 'in_doubt' AND outcome = 'delivered')
    RETURNING place
""")
    .bindparams(sa.bindparam("tried", type_=sa.Text))
    .columns(place=sa.Integer)
)


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt and what is to become of its row."""

    job: Claimed
    outcome: Outcome
    decision: Decision
    seconds: float


async def settle(tx: AsyncConnection, tried: Sequence[Tried]) -> list[bool]:
    """Write the attempts down and move the rows that are still ours.

    :returns: for each, False when another worker has taken over: nothing but the history has
        changed
    """
    document = json.dumps([_document(place, one) for place, one in enumerate(tried)])
    ours = [False] * len(tried)
    for row in await tx.execute(SETTLE, {"tried": document}):
        ours[row.place] = True
    return ours


def _document(place: int, tried: Tried) -> dict[str, Any]:
    job, outcome, decision = tried.job, tried.outcome, tried.decision
    return {
        "place": place,
        "alert_id": str(job.alert_id),
        "target": job.target,
        "attempt": job.attempt,
        "outcome": outcome.kind,
        "told": outcome.reason,
        "status": outcome.status,
        "seconds": tried.seconds,
        "excerpt": outcome.excerpt,
        "error": error_text(outcome),
        "state": decision.state,
        "reason": decision.reason,
        "refund": 0 if decision.spend else 1,
        "delay": decision.delay,
    }


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
