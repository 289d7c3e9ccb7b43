"""The steps of sequences: enrolled, claimed, stopped, settled."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.followups.followup import DAY, SETTLES
from services.followups.store.tables import Row, chat_conversations, followup_event, outbox_table

EnrolledBy = Literal["chat", "api"]
_CLAIMED = (
    "id", "conversation_id", "followup_number", "email", "sequence", "step", "due_at",
    "handed_over_at", "request_id",
)  # fmt: skip


def of_address(email: str) -> sa.ColumnElement[bool]:
    return followup_event.c.email == email


def of_conversation(conversation_id: UUID) -> sa.ColumnElement[bool]:
    return followup_event.c.conversation_id == conversation_id


def of_person(conversation_id: UUID, email: str | None) -> sa.ColumnElement[bool]:
    """All steps of a conversation, and, as soon as its address is known, of that."""
    here = of_conversation(conversation_id)
    return here if email is None else sa.or_(here, of_address(email))


def in_ids(ids: Iterable[UUID]) -> sa.ColumnElement[bool]:
    return followup_event.c.id.in_(ids)


def from_step(row: Row) -> sa.ColumnElement[bool]:
    """This step and the later ones of the same sequence."""
    return sa.and_(
        of_conversation(row["conversation_id"]),
        followup_event.c.sequence == row["sequence"],
        followup_event.c.followup_number >= row["followup_number"],
    )


async def lock_address(tx: AsyncConnection, email: str) -> None:
    """Let whoever enrols, times or stops several steps of an address wait for each other.

    So nothing is enrolled behind the back of a stop, and no two of them lock the same rows in
    different orders. The claim and the relay never wait for a lock.
    """
    address = sa.func.pg_advisory_xact_lock(
        sa.func.hashtext("followups.address"), sa.func.hashtext(email)
    )
    await tx.execute(sa.select(address))


@dataclass(frozen=True, slots=True)
class Enrolment:
    rows: Sequence[Row]
    is_new: bool


async def enrol(
    tx: AsyncConnection,
    conversation_id: UUID,
    email: str,
    sequence: str,
    due: Sequence[datetime],
    by: EnrolledBy,
    request_id: str | None,
) -> Enrolment:
    """Insert the steps of a sequence, or return the ones that the address or conversation has.

    A conversation goes through a sequence once, and an address is in it once at a time.
    """
    await lock_address(tx, email)
    existing = await rows_of(
        tx,
        sa.and_(
            followup_event.c.sequence == sequence,
            sa.or_(
                of_conversation(conversation_id),
                sa.and_(
                    of_address(email), followup_event.c.status.in_(("scheduled", "handed_over"))
                ),
            ),
        ),
    )
    if existing:
        return Enrolment(existing, is_new=False)
    last = sa.select(sa.func.coalesce(sa.func.max(followup_event.c.followup_number), 0)).where(
        of_conversation(conversation_id)
    )
    number = (await tx.execute(last)).scalar_one()
    added = (
        sa.insert(followup_event)
        .values(
            [
                {
                    "id": uuid4(),
                    "conversation_id": conversation_id,
                    "followup_number": number + step,
                    "email": email,
                    "sequence": sequence,
                    "step": step,
                    "enrolled_by": by,
                    "due_at": due_at,
                    "request_id": request_id,
                }
                for step, due_at in enumerate(due, 1)
            ]
        )
        .returning(followup_event)
    )
    rows = (await tx.execute(added)).mappings().all()
    return Enrolment(sorted(rows, key=lambda row: row["step"]), is_new=True)


async def rows_of(tx: AsyncConnection, which: sa.ColumnElement[bool]) -> Sequence[Row]:
    ordered = (
        sa.select(followup_event)
        .where(which)
        .order_by(followup_event.c.created_at, followup_event.c.followup_number)
    )
    return (await tx.execute(ordered)).mappings().all()


async def page(
    tx: AsyncConnection, which: sa.ColumnElement[bool], after: UUID | None, limit: int
) -> Sequence[Row]:
    place = sa.tuple_(followup_event.c.due_at, followup_event.c.id)
    listed = sa.select(followup_event).where(which).order_by(place).limit(limit)
    if after is not None:
        cursor = followup_event.alias("after")
        listed = listed.where(
            place
            > sa.select(cursor.c.due_at, cursor.c.id).where(cursor.c.id == after).scalar_subquery()
        )
    return (await tx.execute(listed)).mappings().all()


async def step(tx: AsyncConnection, followup_id: UUID) -> Row | None:
    found = sa.select(followup_event).where(followup_event.c.id == followup_id)
    return (await tx.execute(found)).mappings().one_or_none()


async def retime(
    tx: AsyncConnection, rows: Sequence[Row], due: Iterable[datetime], by: EnrolledBy
) -> None:
    """Give scheduled steps new times; a step that was claimed meanwhile keeps its own.

    So does one for which there is no time: its step left the configuration.
    """
    for row, due_at in zip(rows, due, strict=False):
        await tx.execute(
            sa.update(followup_event)
            .where(followup_event.c.id == row["id"], followup_event.c.status == "scheduled")
            .values(due_at=due_at, enrolled_by=by)
        )


async def stop(tx: AsyncConnection, which: sa.ColumnElement[bool], reason: str) -> list[UUID]:
    """Cancel what has not left yet: scheduled steps, and handed-over ones still in the outbox.

    A row that the relay has in hand is skipped: it is being published, its outcome will tell.
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
            outbox_table.c.message_id
            == sa.cast(followup_event.c.id, outbox_table.c.message_id.type),
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
        .where(followup_event.c.id == taken_back.c.id, followup_event.c.status == "handed_over")
        .values(status="cancelled", reason=reason)
        .returning(followup_event.c.id)
    )
    return stopped + list((await tx.execute(recalled)).scalars())


async def claim(tx: AsyncConnection, limit: int) -> tuple[Sequence[Row], int]:
    """Take due steps: `scheduled` → `handed_over`. The caller adds the outbox rows.

    SKIP LOCKED lets any number of schedulers work side by side: a step that one of them has
    locked is seen by no other, and afterwards it is no longer `scheduled`.

    Steps leave in their order. One that is due while an earlier step of its conversation still
    waits is not claimed but moved behind that one: else a hundred such would be looked at first
    in every poll, and the rest never.

    :returns: the steps, and how many were due
    """
    rows = (await tx.execute(claiming(limit))).mappings().all()
    taken = [row for row in rows if row["handed_over_at"] is not None]
    return sorted(taken, key=lambda row: (row["due_at"], row["id"])), len(rows)


def claiming(limit: int) -> sa.UpdateBase:
    """Make the statement of a claim."""
    due = (
        sa.select(
            followup_event.c.id,
            followup_event.c.conversation_id,
            followup_event.c.followup_number,
        )
        .where(
            # Written out: a parameter may keep the planner from the partial index.
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
    # A scalar query and not an anti-join, which would read every scheduled step; out here and not
    # above, where it would be asked of every due one. A FILTER and no condition, or the
    # planner reads all of that index for each step where it takes the scheduled ones to be few.
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
) -> dict[str, list[datetime]]:
    """Return, for each address that could be locked, its hand-overs of the last 24 hours.

    An address that another scheduler is working on is missing from the answer: its steps wait for
    the next poll. The lock is held until the transaction ends, so the count stays true.

    :param mine: steps of this transaction, not counted
    """
    lock_them = sa.text(
        "SELECT email FROM unnest(CAST(:emails AS text[])) AS email "
        "WHERE pg_try_advisory_xact_lock(hashtext('followups.cap'), hashtext(email))"
    )
    locked = list((await tx.execute(lock_them, {"emails": list(emails)})).scalars())
    # A statement of its own: its snapshot must be younger than the locks.
    counted = sa.select(followup_event.c.email, followup_event.c.handed_over_at).where(
        followup_event.c.email.in_(locked),
        followup_event.c.handed_over_at > sa.func.now() - DAY,
        followup_event.c.status.in_(("handed_over", "sent", "in_doubt")),
        followup_event.c.id.not_in(mine),
    )
    recent: dict[str, list[datetime]] = {email: [] for email in locked}
    for email, handed_over_at in await tx.execute(counted):
        recent[email].append(handed_over_at)
    return recent


async def put_off(tx: AsyncConnection, row: Row, due_at: datetime) -> None:
    """Undo a claim of this transaction; the steps after this one wait for it."""
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


async def settle(
    tx: AsyncConnection, followup_id: UUID, outcome: str, reason: str | None, at: datetime
) -> bool:
    """Record how a hand-over ended.

    :returns: whether this told anything new
    """
    sent = outcome == "sent"
    settled = (
        sa.update(followup_event)
        .where(
            followup_event.c.id == followup_id,
            followup_event.c.status.in_(SETTLES[outcome]),
            followup_event.c.handed_over_at.is_not(None),
        )
        .values(
            status=outcome, sent_at=at if sent else None, reason=None if sent else reason or outcome
        )
    )
    return (await tx.execute(settled)).rowcount == 1


async def outbox_length(tx: AsyncConnection) -> int:
    """How many messages wait for the broker, counted up to 1000: a health check stays cheap."""
    some = sa.select(outbox_table.c.id).limit(1000).subquery()
    return (await tx.execute(sa.select(sa.func.count()).select_from(some))).scalar_one()
