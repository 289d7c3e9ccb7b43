"""The steps of sequences: enrol, claim, stop, record outcomes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Literal
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.statement import Statement
from services.followups.rules.sequence import DAY, REPLACES, RESCHEDULE_AFTER
from services.followups.store.tables import Row, chat_conversations, followup_event, outbox_table

_message_id = sa.func.coalesce(followup_event.c.message_id, followup_event.c.id)
EnrolledBy = Literal["chat", "api", "form"]
_CLAIMED = (
    "id", "conversation_id", "followup_number", "email", "sequence", "step", "due_at",
    "handed_over_at", "request_id", "message_id",
)  # fmt: skip


def of_address(email: str) -> sa.ColumnElement[bool]:
    return followup_event.c.email == email


def of_conversation(conversation_id: UUID) -> sa.ColumnElement[bool]:
    return followup_event.c.conversation_id == conversation_id


def in_state(status: str) -> sa.ColumnElement[bool]:
    return followup_event.c.status == status


def of_mailbox(conversation_id: UUID, email: str) -> sa.ColumnElement[bool]:
    return sa.and_(of_conversation(conversation_id), of_address(email))


def of_recipient(conversation_id: UUID, email: str | None) -> sa.ColumnElement[bool]:
    """Match all steps of a conversation and, if its address is known, of that address."""
    here = of_conversation(conversation_id)
    return here if email is None else sa.or_(here, of_address(email))


def in_ids(ids: Iterable[UUID]) -> sa.ColumnElement[bool]:
    return followup_event.c.id.in_(ids)


def from_step(row: Row) -> sa.ColumnElement[bool]:
    """Match this step and the later ones of its sequence."""
    return sa.and_(
        of_conversation(row["conversation_id"]),
        followup_event.c.sequence == row["sequence"],
        followup_event.c.followup_number >= row["followup_number"],
    )


ADDRESS_LOCK = "pg_advisory_xact_lock(hashtext('followups.address'), hashtext(:email))"
"""An SQL expression to add to another statement; NULL locks nothing."""
_LOCK_ADDRESS = Statement(
    sa.text(f"SELECT {ADDRESS_LOCK}").bindparams(sa.bindparam("email", type_=sa.Text))
)


async def lock_address(tx: AsyncConnection, email: str) -> None:
    """Serialise the transactions that enrol, retime or stop several steps of an address.

    So a stop cannot miss a concurrent enrolment, and no two transactions lock the same rows in
    different orders. The claim and the relay never wait for this lock. Read under the lock in a
    later statement: the snapshot must be newer than the lock.
    """
    await _LOCK_ADDRESS.execute(tx, {"email": email})


@dataclass(frozen=True, slots=True)
class Enrolment:
    rows: Sequence[Row]
    is_new: bool


# unnest instead of VALUES with many rows, which would be compiled for each number of rows.
_ENROL = Statement(
    sa.text(
        """
WITH there AS (
    SELECT * FROM followup_event WHERE sequence = :sequence AND conversation_id = :conversation
        OR email = :email AND status IN ('scheduled', 'handed_over')
), added AS (
    INSERT INTO followup_event (id, conversation_id, followup_number, email, sequence, step,
        enrolled_by, due_at, request_id)
    SELECT gen_random_uuid(), :conversation, last.number + due.step, :email, :sequence, due.step,
        :by, due.at, :request_id
    FROM unnest(:due) WITH ORDINALITY AS due (at, step), (
        SELECT coalesce(max(followup_number), 0) AS number
        FROM followup_event WHERE conversation_id = :conversation
    ) AS last
    WHERE NOT EXISTS (SELECT FROM there) AND NOT EXISTS (
        SELECT FROM chat_conversations
        WHERE (id = :conversation OR email = :email) AND followups_ended_by IS NOT NULL
    ) AND NOT EXISTS (SELECT FROM undeliverable WHERE email = :email)
    RETURNING *
)
SELECT {columns}, false AS is_new FROM there UNION ALL SELECT {columns}, true FROM added
ORDER BY created_at, followup_number
""".format(columns=", ".join(followup_event.c.keys()))
    )
    .bindparams(
        sa.bindparam("conversation", type_=sa.Uuid),
        sa.bindparam("email", type_=sa.Text),
        sa.bindparam("sequence", type_=sa.Text),
        sa.bindparam("by", type_=sa.Text),
        sa.bindparam("due", type_=pg.ARRAY(sa.DateTime(timezone=True))),
        sa.bindparam("request_id", type_=sa.Text),
    )
    .columns(*followup_event.c, sa.column("is_new", sa.Boolean))
)


async def enrol(
    tx: AsyncConnection,
    conversation_id: UUID,
    email: str,
    sequence: str,
    due: Sequence[datetime],
    by: EnrolledBy,
    request_id: str | None,
) -> Enrolment:
    """Insert the steps of a sequence, or return the existing ones.

    A conversation goes through a sequence once, and an address is in one sequence at a time. A
    person whose follow-ups have ended is not enrolled. The caller has the address lock.
    """
    given = {
        "conversation": conversation_id,
        "email": email,
        "sequence": sequence,
        "by": by,
        "due": due,
        "request_id": request_id,
    }
    rows = [row._asdict() for row in await _ENROL.execute(tx, given)]
    return Enrolment(rows, is_new=any(row["is_new"] for row in rows))


_IN_ORDER = sa.select(followup_event).order_by(
    followup_event.c.created_at, followup_event.c.followup_number
)


async def rows_of(tx: AsyncConnection, which: sa.ColumnElement[bool]) -> Sequence[Row]:
    return (await tx.execute(_IN_ORDER.where(which))).mappings().all()


_HEARD = (
    "id", "conversation_id", "followup_number", "sequence", "step", "enrolled_by", "status",
    "handed_over_at",
)  # fmt: skip
_OF_CONVERSATION = Statement(
    _IN_ORDER.where(
        followup_event.c.conversation_id == sa.bindparam("conversation", type_=sa.Uuid)
    ).with_only_columns(*(followup_event.c[name] for name in _HEARD))
)


async def rows_of_conversation(tx: AsyncConnection, conversation_id: UUID) -> Sequence[Row]:
    """Return what a turn needs of them, in order."""
    found = await _OF_CONVERSATION.execute(tx, {"conversation": conversation_id})
    return [row._asdict() for row in found]


async def page(
    tx: AsyncConnection, which: sa.ColumnElement[bool], after: UUID | None, limit: int
) -> Sequence[Row]:
    # Not as a row, which no index sorts.
    place = followup_event.c.due_at, followup_event.c.id
    listed = sa.select(followup_event).where(which).order_by(*place).limit(limit)
    if after is not None:
        cursor = followup_event.alias("after")
        listed = listed.where(
            sa.tuple_(*place)
            > sa.select(cursor.c.due_at, cursor.c.id).where(cursor.c.id == after).scalar_subquery()
        )
    return (await tx.execute(listed)).mappings().all()


async def sent_in(
    tx: AsyncConnection, conversation_id: UUID, limit: int
) -> list[tuple[str, datetime]]:
    """Return the latest mails of a conversation that were sent: sequence and step, and when."""
    c = followup_event.c
    named = sa.func.concat(c.sequence, " ", c.step)
    sent = sa.select(named, c.sent_at).where(of_conversation(conversation_id), c.status == "sent")
    rows = await tx.execute(sent.order_by(c.sent_at.desc()).limit(limit))
    return [(row[0], row[1]) for row in rows]


async def step(tx: AsyncConnection, followup_id: UUID) -> Row | None:
    found = sa.select(followup_event).where(followup_event.c.id == followup_id)
    return (await tx.execute(found)).mappings().one_or_none()


_RETIME = Statement(
    sa.text("""
UPDATE followup_event SET due_at = given.due_at, enrolled_by = :by
FROM unnest(:ids, :due) AS given (id, due_at)
WHERE followup_event.id = given.id AND status = 'scheduled'
""").bindparams(
        sa.bindparam("ids", type_=pg.ARRAY(sa.Uuid)),
        sa.bindparam("due", type_=pg.ARRAY(sa.DateTime(timezone=True))),
        sa.bindparam("by", type_=sa.Text),
    )
)


async def retime(
    tx: AsyncConnection, rows: Sequence[Row], due: Iterable[datetime], by: EnrolledBy
) -> None:
    """Reschedule steps that are still scheduled.

    A step without a new time, because it is no longer configured, keeps its time.
    """
    timed = list(zip((row["id"] for row in rows), due, strict=False))
    given = {"ids": [each for each, _ in timed], "due": [at for _, at in timed], "by": by}
    await _RETIME.execute(tx, given)


async def move(tx: AsyncConnection, conversation_id: UUID, old: str, new: str | None) -> None:
    """Redirect scheduled steps from a wrong address to the one that replaces it, if any.

    An address that another conversation has enrolled keeps its own steps and gets no second ones.
    """
    if new is not None:
        other = followup_event.alias("other")
        is_enrolled = sa.exists().where(
            other.c.email == new,
            other.c.conversation_id != conversation_id,
            other.c.status.in_(("scheduled", "handed_over")),
        )
        await tx.execute(
            sa.update(followup_event)
            .where(
                of_mailbox(conversation_id, old),
                followup_event.c.status == "scheduled",
                ~is_enrolled,
            )
            .values(email=new)
        )


async def stop(tx: AsyncConnection, which: sa.ColumnElement[bool], reason: str) -> list[UUID]:
    """Cancel scheduled steps, and handed-over ones whose message is still in the outbox.

    A row that the relay has locked is skipped: it is being published, and its outcome will follow.
    """
    cancelled = (
        sa.update(followup_event)
        .where(which, followup_event.c.status == "scheduled")
        .values(status="cancelled", reason=reason)
        .returning(followup_event.c.id)
    )
    stopped = list((await tx.execute(cancelled)).scalars())
    waiting = (
        sa.select(outbox_table.c.id)
        .join(
            followup_event,
            outbox_table.c.message_id == sa.cast(_message_id, outbox_table.c.message_id.type),
        )
        .where(which, followup_event.c.status == "handed_over")
        .with_for_update(of=outbox_table, skip_locked=True)
    )
    taken_back = (
        sa.delete(outbox_table)
        .where(outbox_table.c.id.in_(waiting))
        .returning(sa.cast(outbox_table.c.message_id, sa.Uuid).label("id"))
        .cte("taken_back")
    )
    recalled = (
        sa.update(followup_event)
        .where(_message_id == taken_back.c.id, followup_event.c.status == "handed_over")
        .values(status="cancelled", reason=reason)
        .returning(followup_event.c.id)
    )
    stopped += (await tx.execute(recalled)).scalars()
    await tx.execute(  # alerts decides about these; one that comes back is not rescheduled
        sa.update(followup_event)
        .where(which, followup_event.c.status.in_(REPLACES["too_late"]))
        .values(stopped_by=reason)
    )
    return stopped


async def claim(tx: AsyncConnection, limit: int) -> tuple[Sequence[Row], int]:
    """Claim due steps: `scheduled` → `handed_over`. The caller adds the outbox rows.

    SKIP LOCKED lets any number of schedulers run concurrently: each skips the steps that another
    has locked, and afterwards those are no longer `scheduled`.

    Steps of a conversation leave in order. A due step with an earlier scheduled one is not claimed
    but postponed until that one's due time. Otherwise such steps would fill every batch and starve
    the rest.

    :returns: the claimed steps, and how many were due
    """
    rows = (await tx.execute(claiming(limit))).mappings().all()
    taken = [row for row in rows if row["handed_over_at"] is not None]
    return sorted(taken, key=lambda row: (row["due_at"], row["id"])), len(rows)


@cache  # building it costs as much as running it with nothing due
def claiming(limit: int) -> sa.UpdateBase:
    """Build the claim statement."""
    due = (
        sa.select(
            followup_event.c.id,
            followup_event.c.conversation_id,
            followup_event.c.followup_number,
        )
        .where(
            # A literal: with a parameter the planner may not use the partial index.
            sa.text("followup_event.status = 'scheduled'"),
            followup_event.c.due_at <= sa.func.now(),
        )
        .order_by(followup_event.c.due_at, followup_event.c.followup_number)
        .limit(limit)
        .with_for_update(skip_locked=True, of=followup_event)
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    earlier = followup_event.alias("earlier")
    # A scalar subquery, because an anti-join would read every scheduled step. It is outside the CTE
    # above, where it would run for every due step. FILTER instead of WHERE, because the planner
    # would scan the whole partial index per step when it expects few scheduled ones.
    looked_at = (
        sa.select(
            due.c.id,
            sa.select(sa.func.max(earlier.c.due_at).filter(earlier.c.status == "scheduled"))
            .where(
                earlier.c.conversation_id == due.c.conversation_id,
                earlier.c.followup_number < due.c.followup_number,
            )
            .scalar_subquery()
            .label("waits_for"),
        )
        .cte("looked_at")
        .prefix_with("MATERIALIZED")
    )
    is_free = looked_at.c.waits_for.is_(None)
    return (
        sa.update(followup_event)
        .where(
            followup_event.c.id == looked_at.c.id,
            chat_conversations.c.id == followup_event.c.conversation_id,
        )
        .values(
            status=sa.case((is_free, "handed_over"), else_="scheduled"),
            handed_over_at=sa.case((is_free, sa.func.now())),
            due_at=sa.func.greatest(followup_event.c.due_at, looked_at.c.waits_for),
        )
        .returning(*(followup_event.c[name] for name in _CLAIMED), chat_conversations.c.state)
    )


async def recent_hand_overs(
    tx: AsyncConnection, emails: Sequence[str], mine: Sequence[UUID]
) -> tuple[dict[str, list[datetime]], set[str]]:
    """Return the hand-overs of the last 24 hours for each address that could be locked.

    A mail counts from the time it was sent, which may be long after its hand-over. The second
    part of the answer lists addresses with a hand-over whose outcome is unknown, however old.
    An address that another scheduler has locked is missing: its steps wait for the next poll. The
    lock is held until the transaction ends, so the count stays valid.

    :param mine: steps claimed in this transaction, not counted
    """
    lock_them = sa.text(
        "SELECT email FROM unnest(CAST(:emails AS text[])) AS email "
        "WHERE pg_try_advisory_xact_lock(hashtext('followups.cap'), hashtext(email))"
    )
    locked = list((await tx.execute(lock_them, {"emails": list(emails)})).scalars())
    # A separate statement, because its snapshot must be newer than the locks.
    column = followup_event.c
    left_at = sa.func.greatest(column.handed_over_at, column.sent_at, column.outcome_at)
    unknown = column.status == "handed_over"
    left = column.status.in_(("sent", "in_doubt")) & (left_at > sa.func.now() - DAY)
    counted = sa.select(column.email, left_at, unknown).where(
        column.email.in_(locked), sa.or_(unknown, left), column.id.not_in(mine)
    )
    recent: dict[str, list[datetime]] = {email: [] for email in locked}
    on_their_way = set()
    for email, at, is_unknown in await tx.execute(counted):
        if is_unknown:
            on_their_way.add(email)
        else:
            recent[email].append(at)
    return recent, on_their_way


async def put_off(tx: AsyncConnection, row: Row, due_at: datetime) -> None:
    """Undo a claim of this transaction; later steps wait for this one."""
    await tx.execute(
        sa.update(followup_event)
        .where(followup_event.c.id == row["id"])
        .values(
            status="scheduled",
            handed_over_at=None,
            due_at=sa.func.greatest(followup_event.c.due_at, due_at),
        )
    )


async def fail(tx: AsyncConnection, followup_id: UUID, reason: str) -> None:
    await tx.execute(
        sa.update(followup_event)
        .where(followup_event.c.id == followup_id)
        .values(status="failed", reason=reason, handed_over_at=None)
    )


async def reschedule(
    tx: AsyncConnection, followup_id: UUID, message_id: UUID, not_before: datetime | None = None
) -> bool:
    """Reschedule a step that could not be sent within its window, under a new message id.

    A duplicate of the old message finds a delivery that has ended. A step that was stopped in the
    meantime becomes `cancelled` instead.

    :param not_before: the person pauses until then, or had a mail too recently
    :returns: whether the step was in flight under this message id
    """
    stopped = followup_event.c.stopped_by.is_not(None)
    back = (
        sa.update(followup_event)
        .where(
            followup_event.c.id == followup_id,
            _message_id == message_id,
            followup_event.c.status.in_(REPLACES["too_late"]),
        )
        .values(
            status=sa.case((stopped, "cancelled"), else_="scheduled"),
            reason=followup_event.c.stopped_by,
            message_id=uuid4(),
            handed_over_at=None,
            outcome_at=None,
            # The clocks of alerts and of this service may differ.
            due_at=sa.func.greatest(
                followup_event.c.due_at, sa.func.now() + RESCHEDULE_AFTER, not_before
            ),
        )
    )
    return (await tx.execute(back)).rowcount == 1


async def record_outcome(
    tx: AsyncConnection,
    followup_id: UUID,
    message_id: UUID,
    outcome: str,
    reason: str | None,
    at: datetime,
) -> bool:
    """Record the outcome of a hand-over; outcomes of an earlier message id are ignored.

    :param at: the time of the outcome; the later of two counts, in whichever order they arrive
    :returns: whether this changed anything
    """
    sent = outcome == "sent"
    known_since = followup_event.c.outcome_at
    recorded = (
        sa.update(followup_event)
        .where(
            followup_event.c.id == followup_id,
            _message_id == message_id,
            followup_event.c.status.in_(REPLACES[outcome]),
            followup_event.c.handed_over_at.is_not(None),
            sa.true() if sent else sa.func.coalesce(known_since < at, sa.true()),
        )
        .values(
            status=outcome,
            outcome_at=at,
            sent_at=at if sent else None,
            reason=None if sent else reason or outcome,
        )
    )
    return (await tx.execute(recorded)).rowcount == 1


async def doubt(tx: AsyncConnection, days: int) -> int:
    """Put hand-overs without news for this long in doubt, for a person to decide.

    Nothing else goes to an address while the outcome of a hand-over is unknown.

    :returns: how many
    """
    waits = sa.select(outbox_table.c.id).where(
        outbox_table.c.message_id == sa.cast(_message_id, outbox_table.c.message_id.type)
    )
    given_up = (
        sa.update(followup_event)
        .where(
            sa.text("followup_event.status = 'handed_over'"),
            followup_event.c.handed_over_at < sa.func.now() - sa.func.make_interval(0, 0, 0, days),
            ~waits.exists(),
        )
        .values(status="in_doubt", reason="no_outcome")
    )
    return (await tx.execute(given_up)).rowcount


async def outbox_length(tx: AsyncConnection) -> int:
    """Count the messages that wait for the broker, up to 1000, which keeps health checks cheap."""
    some = sa.select(outbox_table.c.id).limit(1000).subquery()
    return (await tx.execute(sa.select(sa.func.count()).select_from(some))).scalar_one()
