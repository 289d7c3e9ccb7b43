"""The ledger: its tables, one function per question or change. The caller owns the transaction.

`now()` is always the database's: leases and due times of several workers need one clock.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import inbox, outbox
from services.alerts import messages, topology
from services.alerts.alert import Claimed, Decision, Once, Outcome, Reason, Seen, State

metadata = sa.MetaData()
_timestamptz = sa.DateTime(timezone=True)
_now = sa.text("now()")

OPEN: Final = "state IN ('pending', 'claimed', 'sending')"
KEPT: Final = "state IN ('failed', 'in_doubt', 'discarded')"
_SHOWN = "error IS NOT NULL AND state NOT IN ('discarded', 'in_doubt')"

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("alert_id", sa.Uuid, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("payload", JSONB),
    sa.Column("dedup_key", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("accepted_at", _timestamptz, nullable=False),
    sa.Column("once_address", sa.Text),
    sa.Column("once_purpose", sa.Text),
    sa.Column("once_reference", sa.Text),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("operator", sa.Text),
    sa.Column("turn", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("spent", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("lease_until", _timestamptz),
    sa.Column("last_attempt_at", _timestamptz),
    sa.Column("finished_at", _timestamptz),
    sa.Index("delivery_open", "created_at", "alert_id", "target", postgresql_where=sa.text(OPEN)),
    sa.Index(
        "delivery_kept",
        "state",
        "created_at",
        "alert_id",
        "target",
        postgresql_where=sa.text(KEPT),
    ),
    sa.Index("delivery_delivered", "finished_at", postgresql_where=sa.text("state = 'delivered'")),
    sa.Index(
        "dead_letter_queue_status_created",
        sa.text("dead_letter_status(state)"),
        "created_at",
        postgresql_where=sa.text(_SHOWN),
    ),
    sa.Index("dead_letter_queue_created", "created_at", postgresql_where=sa.text(_SHOWN)),
)

attempt = sa.Table(
    "attempt",
    metadata,
    sa.Column("alert_id", sa.Uuid, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("seconds", sa.REAL, nullable=False),
    sa.Column("excerpt", sa.Text, nullable=False),
    sa.Column("ended_at", _timestamptz, nullable=False, server_default=_now),
    sa.ForeignKeyConstraint(
        ["alert_id", "target"], ["delivery.alert_id", "delivery.target"], ondelete="CASCADE"
    ),
)

ledger_total = sa.Table(
    "ledger_total",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    *(
        sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
        for name in ("accepted", "delivered", "failed", "discarded")
    ),
    comment="accepted counts every row ever written; the others only rows that were purged",
)

escalation = sa.Table(
    "escalation",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("alert_id", sa.Uuid, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("digest", sa.Uuid, comment="the alert that tells a person of it"),
    sa.Index(
        "escalation_untold", "target", "created_at", postgresql_where=sa.text("digest IS NULL")
    ),
    sa.Index("escalation_digest", "digest", postgresql_where=sa.text("digest IS NOT NULL")),
)

epoch = sa.Table(
    "epoch",
    metadata,
    sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("id", sa.Uuid, nullable=False),
)

outbox.table(metadata)


@dataclass(frozen=True, slots=True)
class NewRow:
    """A delivery as intake makes it; `failed` when nobody knows where it should go."""

    alert_id: UUID
    target: str
    event_type: str
    severity: str
    source: str
    payload: dict[str, Any]
    dedup_key: str | None
    request_id: str | None
    accepted_at: datetime
    once_address: str | None = None
    once_purpose: str | None = None
    once_reference: str | None = None
    failed: Reason | None = None


# Rows are ordered, so that two batches with the same alerts wait for each other, not in a circle.
_ACCEPT = sa.text("""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            alert_id uuid, target text, event_type text, severity text, source text,
            payload jsonb, dedup_key text, request_id text, accepted_at timestamptz,
            once_address text, once_purpose text, once_reference text, failed text)
    ), added AS (
        INSERT INTO delivery (
            alert_id, target, event_type, severity, source, payload, dedup_key, request_id,
            accepted_at, once_address, once_purpose, once_reference, state, reason, error,
            finished_at)
        SELECT
            alert_id, target, event_type, severity, source, payload, dedup_key, request_id,
            accepted_at, once_address, once_purpose, once_reference,
            CASE WHEN failed IS NULL THEN 'pending' ELSE 'failed' END, failed, failed,
            CASE WHEN failed IS NULL THEN NULL ELSE now() END
        FROM given ORDER BY alert_id, target
        ON CONFLICT DO NOTHING
        RETURNING alert_id, target, event_type, reason
    ), counted AS (
        INSERT INTO ledger_total AS total (target, accepted)
        SELECT target, count(*) FROM added GROUP BY target ORDER BY target
        ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
    ), escalated AS (
        INSERT INTO escalation (alert_id, target, event_type, reason)
        SELECT alert_id, target, event_type, reason FROM added WHERE reason IS NOT NULL
    )
    SELECT count(*) AS added FROM added
""").columns(added=sa.BigInteger)


async def accept(tx: AsyncConnection, rows: Sequence[NewRow]) -> int:
    """Write the rows that are not there yet and count them, in one statement.

    :returns: how many were new
    """
    document = json.dumps([asdict(row) for row in rows], default=str)
    return int((await tx.execute(_ACCEPT, {"rows": document})).scalar_one())


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


async def escalate(tx: AsyncConnection, ended: Ended, reason: Reason) -> None:
    """Put a failure on the list of what a person is to be told."""
    await tx.execute(
        sa.insert(escalation).values(
            alert_id=ended.alert_id,
            target=ended.target,
            event_type=ended.event_type,
            reason=reason,
            error=ended.error,
        )
    )


@dataclass(frozen=True)
class Untold:
    """What a person is to be told of one target, in sum."""

    count: int
    reasons: dict[str, int]
    first_at: datetime
    first_error: str
    last_at: datetime
    last_error: str


_TELL_OF = (
    sa.text("""
    WITH told AS (
        UPDATE escalation SET digest = :digest WHERE target = :target AND digest IS NULL
        RETURNING id, reason, created_at, coalesce(error, reason) AS error
    )
    SELECT
        count(*) AS count,
        (SELECT jsonb_object_agg(reason, number) FROM
            (SELECT reason, count(*) AS number FROM told GROUP BY reason) r) AS reasons,
        min(created_at) AS first_at, (array_agg(error ORDER BY id))[1] AS first_error,
        max(created_at) AS last_at, (array_agg(error ORDER BY id DESC))[1] AS last_error
    FROM told
""")
    .bindparams(sa.bindparam("digest", type_=sa.Uuid), sa.bindparam("target", type_=sa.Text))
    .columns(
        count=sa.BigInteger,
        reasons=JSONB,
        first_at=_timestamptz,
        first_error=sa.Text,
        last_at=_timestamptz,
        last_error=sa.Text,
    )
)


async def targets_untold(tx: AsyncConnection) -> list[str]:
    untold = sa.select(escalation.c.target).where(escalation.c.digest.is_(None)).distinct()
    return list((await tx.execute(untold)).scalars())


async def tell_of(tx: AsyncConnection, target: str, digest: UUID) -> Untold | None:
    """Mark what was not told yet as told by this digest, and sum it up; None when there is none."""
    row = (await tx.execute(_TELL_OF, {"target": target, "digest": digest})).mappings().one()
    return Untold(**row) if row["count"] else None


async def untell(tx: AsyncConnection, digest: UUID) -> None:
    """Nobody got this digest: the next one tells it."""
    await tx.execute(sa.update(escalation).where(escalation.c.digest == digest).values(digest=None))


_ABANDONED = sa.text("""
    SELECT alert_id, target FROM delivery
    WHERE state = 'sending' AND once_address IS NOT NULL AND lease_until < now()
    LIMIT 500
""").columns(alert_id=sa.Uuid, target=sa.Text)


async def waiting(tx: AsyncConnection, target: str, batch: int) -> list[Any]:
    """Lock some rows of a target that wait for their next attempt, the soonest first."""
    column = delivery.c
    return list(
        await tx.execute(
            sa.select(column.alert_id, column.target)
            .where(
                sa.text("state = 'pending'"),
                column.target == target,
                column.due_at > sa.func.now(),
            )
            .order_by(column.due_at)
            .limit(batch)
            .with_for_update(skip_locked=True)
        )
    )


async def overdue(
    tx: AsyncConnection,
    targets: Sequence[str],
    seconds: float | None,
    after: "Cursor | None",
    batch: int,
) -> list[Any]:
    """Lock some open rows whose time, or whose worker's, was over so long ago; None for all.

    A mail that may be out is not among them: it is not to be handed out again.
    """
    column = delivery.c
    order = (column.created_at, column.alert_id, column.target)
    statement = (
        sa.select(*order)
        .where(
            sa.text(OPEN),
            column.target.in_(targets),
            ~((column.state == State.SENDING) & column.once_address.is_not(None)),
        )
        .order_by(*order)
        .limit(batch)
        .with_for_update(skip_locked=True)
    )
    if seconds is not None:
        due = sa.func.coalesce(column.lease_until, column.due_at)
        statement = statement.where(due < sa.func.now() - timedelta(seconds=seconds))
    if after is not None:
        statement = statement.where(sa.tuple_(*order) > sa.tuple_(*after))
    return list(await tx.execute(statement))


async def hand_out(tx: AsyncConnection, rows: Sequence[Any], **changes: Any) -> None:
    """Publish these locked rows again, through the outbox and under the next turn.

    With the turn raised every older copy is a twin, and acked as one.
    """
    column = delivery.c
    again = await tx.execute(
        sa.update(delivery)
        .where(_among(rows))
        .values(turn=column.turn + 1, due_at=sa.func.now(), **changes)
        .returning(column.alert_id, column.target, column.turn, column.request_id)
    )
    await outbox.add_all(
        tx,
        [
            (
                topology.ALERTS.name,
                topology.work_name(row.target),
                messages.work(row.alert_id, row.target, row.turn, row.request_id),
            )
            for row in again
        ],
    )


AFRESH: Final[Mapping[str, Any]] = {
    "state": State.PENDING,
    "spent": 0,
    "reason": None,
    "finished_at": None,
}
"""What a retry by hand changes: all its attempts again; `attempt`, the fence, goes on."""


async def too_old(tx: AsyncConnection, target: str, seconds: float, batch: int) -> list[Any]:
    """Lock some rows of a target that nobody is at and that were accepted so long ago."""
    column = delivery.c
    return list(
        await tx.execute(
            sa.select(delivery)
            .where(
                sa.text(OPEN),
                column.state == State.PENDING,
                column.target == target,
                column.accepted_at < sa.func.now() - timedelta(seconds=seconds),
            )
            .order_by(column.created_at)
            .limit(batch)
            .with_for_update(skip_locked=True)
        )
    )


async def abandoned(tx: AsyncConnection) -> list[tuple[UUID, str]]:
    """Return mails whose worker died with the dot perhaps out."""
    return [(row.alert_id, row.target) for row in await tx.execute(_ABANDONED)]


async def epoch_of(tx: AsyncConnection) -> UUID | None:
    found: UUID | None = await tx.scalar(sa.select(epoch.c.id))
    return found


async def begin_epoch(tx: AsyncConnection, new: UUID) -> None:
    await tx.execute(sa.delete(epoch))
    await tx.execute(sa.insert(epoch).values(id=new))


# What the admin asks.


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows; an empty one is all of them."""

    ids: Sequence[UUID] | None = None
    target: str | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> list[sa.ColumnElement[bool]]:
        column = delivery.c
        found: list[sa.ColumnElement[bool]] = []
        if self.ids is not None:
            found.append(column.alert_id.in_(self.ids))
        if self.target is not None:
            found.append(column.target == self.target)
        if self.event_type is not None:
            found.append(column.event_type == self.event_type)
        if self.since is not None:
            found.append(column.created_at >= self.since)
        if self.until is not None:
            found.append(column.created_at < self.until)
        return found


Cursor = tuple[datetime, UUID, str]

# Literally, or the planner misses the partial indexes.
_LISTS: Final = {
    "pending": sa.text(OPEN),
    "failed": sa.text(f"{KEPT} AND state = 'failed'"),
    "in_doubt": sa.text(f"{KEPT} AND state = 'in_doubt'"),
}


async def page(
    tx: AsyncConnection,
    name: str,
    chosen: Filter,
    after: Cursor | None,
    limit: int,
    *,
    lock: bool = False,
) -> list[Any]:
    """Return a page of a list, oldest first; locked, without what others hold."""
    column = delivery.c
    order = (column.created_at, column.alert_id, column.target)
    statement = (
        sa.select(delivery).where(_LISTS[name], *chosen.where()).order_by(*order).limit(limit)
    )
    if after is not None:
        statement = statement.where(sa.tuple_(*order) > sa.tuple_(*after))
    if lock:
        statement = statement.with_for_update(skip_locked=True)
    return list(await tx.execute(statement))


async def find(tx: AsyncConnection, alert_id: UUID) -> tuple[list[Any], list[Any]]:
    """Return an alert's rows and their attempts, in order."""
    rows = await tx.execute(
        sa.select(delivery).where(delivery.c.alert_id == alert_id).order_by(delivery.c.target)
    )
    attempts = await tx.execute(
        sa.select(attempt)
        .where(attempt.c.alert_id == alert_id)
        .order_by(attempt.c.target, attempt.c.number)
    )
    return list(rows), list(attempts)


# One statement, so one snapshot: what is delivered is what is left of what was accepted.
_STATS = (
    sa.text(f"""
    WITH open AS (
        SELECT target, count(*) AS pending,
            CAST(extract(epoch FROM now() - min(created_at)) AS float) AS oldest
        FROM delivery WHERE {OPEN} GROUP BY target
    ), kept AS (
        SELECT target,
            count(*) FILTER (WHERE state = 'failed') AS failed,
            count(*) FILTER (WHERE state = 'discarded') AS discarded,
            count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt
        FROM delivery WHERE {KEPT} GROUP BY target
    )
    SELECT target, accepted,
        coalesce(open.pending, 0) AS pending,
        ledger_total.failed + coalesce(kept.failed, 0) AS failed,
        ledger_total.discarded + coalesce(kept.discarded, 0) AS discarded,
        coalesce(kept.in_doubt, 0) AS in_doubt,
        oldest AS oldest_pending_seconds
    FROM ledger_total LEFT JOIN open USING (target) LEFT JOIN kept USING (target)
""")
).columns(
    target=sa.Text,
    accepted=sa.BigInteger,
    pending=sa.BigInteger,
    failed=sa.BigInteger,
    discarded=sa.BigInteger,
    in_doubt=sa.BigInteger,
    oldest_pending_seconds=sa.Float,
)


async def stats(tx: AsyncConnection) -> dict[str, dict[str, Any]]:
    """Count by target without looking at what was delivered, which may be millions of rows."""
    found: dict[str, dict[str, Any]] = {}
    for row in await tx.execute(_STATS):
        counts = row._asdict()
        rest = sum(counts[name] for name in ("pending", "failed", "discarded", "in_doubt"))
        found[counts.pop("target")] = {**counts, "delivered": counts["accepted"] - rest}
    return found


_CHECK = (
    sa.text(f"""
    SELECT
        (SELECT coalesce(sum(accepted), 0) FROM ledger_total) AS accepted,
        (SELECT coalesce(sum(delivered), 0) FROM ledger_total) AS purged_delivered,
        (SELECT coalesce(sum(failed), 0) FROM ledger_total) AS purged_failed,
        (SELECT coalesce(sum(discarded), 0) FROM ledger_total) AS purged_discarded,
        count(*) FILTER (WHERE state = 'delivered') AS delivered,
        count(*) FILTER (WHERE {OPEN}) AS pending,
        count(*) FILTER (WHERE state = 'failed') AS failed,
        count(*) FILTER (WHERE state = 'discarded') AS discarded,
        count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt,
        count(*) FILTER (WHERE {OPEN} AND target = ANY(CAST(:targets AS text[]))
            AND coalesce(lease_until, due_at) < now() - make_interval(secs => :seconds)
        ) AS stranded
    FROM delivery
""")
    .bindparams(
        sa.bindparam("targets", type_=ARRAY(sa.Text)), sa.bindparam("seconds", type_=sa.Float)
    )
    .columns(
        **dict.fromkeys(
            (
                "accepted",
                "purged_delivered",
                "purged_failed",
                "purged_discarded",
                "delivered",
                "pending",
                "failed",
                "discarded",
                "in_doubt",
                "stranded",
            ),
            sa.BigInteger,
        )
    )
)


async def check(tx: AsyncConnection, targets: Sequence[str], seconds: float) -> dict[str, int]:
    """Count every term of P1's equation from the rows themselves, in one snapshot.

    :param targets: those that are not paused, and whose queues are empty
    """
    row = (await tx.execute(_CHECK, {"targets": list(targets), "seconds": seconds})).one()
    return {
        "accepted": int(row.accepted),
        "delivered": int(row.delivered + row.purged_delivered),
        "pending": int(row.pending),
        "failed": int(row.failed + row.purged_failed),
        "discarded": int(row.discarded + row.purged_discarded),
        "in_doubt": int(row.in_doubt),
        "stranded": int(row.stranded),
    }


async def count(tx: AsyncConnection, chosen: Filter, states: Sequence[State]) -> int:
    found = await tx.scalar(
        sa.select(sa.func.count())
        .select_from(delivery)
        .where(delivery.c.state.in_(states), *chosen.where())
    )
    return int(found or 0)


async def end(
    tx: AsyncConnection,
    rows: Sequence[Any],
    state: State,
    reason: Reason,
    error: str,
    operator: str | None = None,
) -> None:
    """End these locked rows without an attempt."""
    await tx.execute(
        sa.update(delivery)
        .where(_among(rows))
        .values(
            state=state,
            reason=reason,
            error=error,
            lease_until=None,
            finished_at=sa.func.now(),
            operator=operator,
        )
    )


def _among(rows: Sequence[Any]) -> sa.ColumnElement[bool]:
    return sa.tuple_(delivery.c.alert_id, delivery.c.target).in_(
        [(row.alert_id, row.target) for row in rows]
    )


def ended(row: Any) -> Ended:
    return Ended(row.alert_id, row.target, row.attempt, row.event_type, row.error, once_of(row))


# A row is what tells a late copy of its message that the mail has left: without it the copy would
# be a new one, and be sent. So those rows stay while a copy may still be under way.
_ONCE_KEPT: Final = inbox.KEEP.total_seconds()


def _purge(state: State) -> sa.TextualSelect:
    return (
        sa.text(f"""
        WITH old AS (
            SELECT alert_id, target FROM delivery
            WHERE state = '{state}' AND finished_at < now() - make_interval(secs => :seconds)
                AND (once_address IS NULL
                    OR finished_at < now() - make_interval(secs => {_ONCE_KEPT}))
            LIMIT :batch FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM delivery USING old
            WHERE delivery.alert_id = old.alert_id AND delivery.target = old.target
            RETURNING delivery.target
        ), counted AS (
            UPDATE ledger_total SET {state} = ledger_total.{state} + purged.rows
            FROM (SELECT target, count(*) AS rows FROM gone GROUP BY target) AS purged
            WHERE ledger_total.target = purged.target
        )
        SELECT count(*) AS done FROM gone
    """)
        .bindparams(
            sa.bindparam("seconds", type_=sa.Float), sa.bindparam("batch", type_=sa.Integer)
        )
        .columns(done=sa.BigInteger)
    )


_PURGES: Final = (_purge(State.DELIVERED), _purge(State.DISCARDED))


async def purge(tx: AsyncConnection, seconds: float, batch: int = 500) -> int:
    """Delete some rows that are done for so long, still counting them; 0 when none is left."""
    done = 0
    for statement in _PURGES:
        found = await tx.execute(statement, {"seconds": seconds, "batch": batch})
        done += int(found.scalar_one())
    return done


async def ping(tx: AsyncConnection) -> None:
    await tx.execute(sa.text("SELECT 1"))
