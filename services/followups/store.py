"""The tables of followups, one function per question or change; the caller owns the transaction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import inbox, outbox
from services.followups.followup import DAY, SETTLES, STATES

metadata = sa.MetaData()
_timestamptz = sa.DateTime(timezone=True)

chat_conversations = sa.Table(
    "chat_conversations",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("session_id", sa.Text),
    sa.Column("email", sa.Text),
    sa.Column("state", pg.JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("score", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("qualified_at", _timestamptz),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("updated_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.UniqueConstraint("session_id", name="chat_conversations_session"),
    sa.CheckConstraint("score BETWEEN 0 AND 100", name="chat_conversations_score"),
    sa.CheckConstraint("num_nonnulls(session_id, email) > 0", name="chat_conversations_reachable"),
    sa.Index("chat_conversations_email", "email"),
    sa.Index(
        "chat_conversations_without_chat",
        "email",
        unique=True,
        postgresql_where=sa.text("session_id IS NULL"),
    ),
)

chat_message = sa.Table(
    "chat_message",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column(
        "conversation_id",
        sa.ForeignKey(chat_conversations.c.id, ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.CheckConstraint("author IN ('lead', 'bot')", name="chat_message_author"),
    sa.Index("chat_message_conversation", "conversation_id", "id"),
)

followup_event = sa.Table(
    "followup_event",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column(
        "conversation_id",
        sa.ForeignKey(chat_conversations.c.id, ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("followup_number", sa.Integer, nullable=False),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("sequence", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("enrolled_by", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'scheduled'")),
    sa.Column("due_at", _timestamptz, nullable=False),
    sa.Column("handed_over_at", _timestamptz),
    sa.Column("sent_at", _timestamptz),
    sa.Column("reason", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.UniqueConstraint("conversation_id", "followup_number", name="followup_event_number"),
    sa.CheckConstraint(
        f"status IN ({', '.join(repr(state) for state in STATES)})", name="followup_event_status"
    ),
    sa.Index("followup_event_due", "due_at", postgresql_where=sa.text("status = 'scheduled'")),
    sa.Index("followup_event_email", "email", "handed_over_at"),
)

outbox_table = outbox.table(metadata)
# A stop takes messages back by their id, also when RabbitMQ was away for a day.
sa.Index("outbox_message", outbox_table.c.message_id)
inbox_table = inbox.table(metadata)

EnrolledBy = Literal["chat", "api"]
_CLAIMED = (
    "id", "conversation_id", "followup_number", "email", "sequence", "step", "due_at",
    "handed_over_at", "request_id",
)  # fmt: skip
Row = sa.RowMapping


def of_address(email: str) -> sa.ColumnElement[bool]:
    return followup_event.c.email == email


def of_conversation(conversation_id: UUID) -> sa.ColumnElement[bool]:
    return followup_event.c.conversation_id == conversation_id


def in_ids(ids: Iterable[UUID]) -> sa.ColumnElement[bool]:
    return followup_event.c.id.in_(ids)


def from_step(row: Row) -> sa.ColumnElement[bool]:
    """This step and the later ones of the same sequence."""
    return sa.and_(
        of_conversation(row["conversation_id"]),
        followup_event.c.sequence == row["sequence"],
        followup_event.c.followup_number >= row["followup_number"],
    )


# --- conversations ----------------------------------------------------------------------------


async def enter_conversation(tx: AsyncConnection, session_id: str) -> Row:
    """Return the session's conversation, made when it is new, locked until the transaction ends.

    One statement makes or finds it, so two tabs get one conversation, and their turns queue here.
    """
    entered = (
        pg.insert(chat_conversations)
        .values(id=uuid4(), session_id=session_id)
        .on_conflict_do_update(
            constraint="chat_conversations_session", set_={"updated_at": sa.func.now()}
        )
        .returning(chat_conversations)
    )
    row: Row = (await tx.execute(entered)).mappings().one()
    return row


async def save_turn(
    tx: AsyncConnection,
    conversation_id: UUID,
    *,
    said: str,
    reply: str,
    state: Mapping[str, Any],
    email: str | None,
    score: int,
    qualified_at: datetime | None,
) -> None:
    await tx.execute(
        sa.insert(chat_message).values(
            [
                {"conversation_id": conversation_id, "author": "lead", "body": said},
                {"conversation_id": conversation_id, "author": "bot", "body": reply},
            ]
        )
    )
    await tx.execute(
        sa.update(chat_conversations)
        .where(chat_conversations.c.id == conversation_id)
        .values(state=state, email=email, score=score, qualified_at=qualified_at)
    )


async def conversation(tx: AsyncConnection, conversation_id: UUID) -> Row | None:
    found = sa.select(chat_conversations).where(chat_conversations.c.id == conversation_id)
    return (await tx.execute(found)).mappings().one_or_none()


async def conversation_of_address(tx: AsyncConnection, email: str) -> UUID:
    """Return the address's latest conversation, or one without a chat, made when there is none."""
    latest = (
        sa.select(chat_conversations.c.id)
        .where(chat_conversations.c.email == email)
        .order_by(chat_conversations.c.updated_at.desc())
        .limit(1)
    )
    found: UUID | None = (await tx.execute(latest)).scalar_one_or_none()
    if found is not None:
        return found
    made = (
        pg.insert(chat_conversations)
        .values(id=uuid4(), email=email)
        .on_conflict_do_update(
            index_elements=["email"],
            index_where=chat_conversations.c.session_id.is_(None),
            set_={"updated_at": sa.func.now()},
        )
        .returning(chat_conversations.c.id)
    )
    new: UUID = (await tx.execute(made)).scalar_one()
    return new


async def erase(tx: AsyncConnection, email: str) -> int:
    """Delete what is held on an address: conversations, messages, follow-ups, what waits to leave.

    :returns: how many conversations there were
    """
    await stop(tx, of_address(email), "erased")
    body = outbox_table.c.body
    theirs = sa.select(sa.cast(chat_conversations.c.id, sa.Text)).where(_of_person(email))
    untold = (  # leads and agreements that nobody has been told of yet
        sa.select(outbox_table.c.id)
        .where(sa.or_(body["email"].astext == email, body["conversation_id"].astext.in_(theirs)))
        .with_for_update(skip_locked=True)
    )
    await tx.execute(sa.delete(outbox_table).where(outbox_table.c.id.in_(untold)))
    gone = sa.delete(chat_conversations).where(_of_person(email))
    return (await tx.execute(gone)).rowcount


def _of_person(email: str) -> sa.ColumnElement[bool]:
    # A conversation whose person gave another address before or after is theirs as a whole.
    chased = sa.select(followup_event.c.conversation_id).where(of_address(email))
    return sa.or_(chat_conversations.c.email == email, chat_conversations.c.id.in_(chased))


async def addresses(tx: AsyncConnection, offset: int, limit: int) -> Sequence[str]:
    """Read a page of the addresses of which anything is held."""
    held = sa.union(
        sa.select(chat_conversations.c.email).where(chat_conversations.c.email.is_not(None)),
        sa.select(followup_event.c.email),
    ).subquery()
    page = sa.select(held.c.email).order_by(held.c.email).offset(offset).limit(limit)
    return (await tx.execute(page)).scalars().all()


HELD = ("conversations", "messages", "followups")


async def held(
    tx: AsyncConnection, email: str, kind: str, offset: int, limit: int
) -> Sequence[Row]:
    """Read a page of what is held on an address, of one of the kinds of HELD."""
    conversations = sa.select(chat_conversations.c.id).where(_of_person(email))
    records = {
        "conversations": sa.select(chat_conversations)
        .where(_of_person(email))
        .order_by(chat_conversations.c.created_at, chat_conversations.c.id),
        "messages": sa.select(chat_message)
        .where(chat_message.c.conversation_id.in_(conversations))
        .order_by(chat_message.c.id),
        "followups": sa.select(followup_event)
        .where(sa.or_(of_address(email), followup_event.c.conversation_id.in_(conversations)))
        .order_by(followup_event.c.created_at, followup_event.c.id),
    }
    return (await tx.execute(records[kind].offset(offset).limit(limit))).mappings().all()


# --- follow-ups -------------------------------------------------------------------------------


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
    # Two conversations of one address may enrol it at the same moment: the address is the lock.
    await tx.execute(sa.select(_address_lock("enrol", email)))
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


def _address_lock(purpose: str, email: str) -> sa.ColumnElement[Any]:
    return sa.func.pg_advisory_xact_lock(
        sa.func.hashtext(f"followups.{purpose}"), sa.func.hashtext(email)
    )


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


async def lock(tx: AsyncConnection, followup_id: UUID) -> Row | None:
    found = sa.select(followup_event).where(followup_event.c.id == followup_id).with_for_update()
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


async def claim(tx: AsyncConnection, limit: int) -> Sequence[Row]:
    """Take due steps: `scheduled` → `handed_over`. The caller adds the outbox rows.

    SKIP LOCKED lets any number of schedulers work side by side; the UPDATE is what makes a step
    theirs, so a step that two of them see is taken by one.
    """
    due = (
        sa.select(followup_event.c.id)
        .where(
            # Written out: a parameter may keep the planner from the partial index.
            sa.text("followup_event.status = 'scheduled'"),
            followup_event.c.due_at <= sa.func.now(),
        )
        .order_by(followup_event.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=followup_event)
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    earlier = followup_event.alias("earlier")
    # Steps leave in their order. A scalar query and not an anti-join, which would read every
    # scheduled step; out here and not above, where it would be asked of every due one.
    an_earlier_step_waits = (
        sa.select(sa.literal(1))
        .where(
            earlier.c.conversation_id == followup_event.c.conversation_id,
            earlier.c.followup_number < followup_event.c.followup_number,
            earlier.c.status == "scheduled",
        )
        .limit(1)
        .scalar_subquery()
    )
    claimed = (
        sa.update(followup_event)
        .where(
            followup_event.c.id == due.c.id,
            chat_conversations.c.id == followup_event.c.conversation_id,
            an_earlier_step_waits.is_(None),
        )
        .values(status="handed_over", handed_over_at=sa.func.now())
        .returning(
            *(followup_event.c[name] for name in _CLAIMED),
            chat_conversations.c.state,
        )
    )
    rows = (await tx.execute(claimed)).mappings().all()
    return sorted(rows, key=lambda row: (row["due_at"], row["id"]))


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
    """Undo a claim of this transaction; the steps after this one are not due before it."""
    later = sa.and_(
        of_conversation(row["conversation_id"]),
        followup_event.c.followup_number > row["followup_number"],
        followup_event.c.status == "scheduled",
    )
    await tx.execute(
        sa.update(followup_event)
        .where(sa.or_(followup_event.c.id == row["id"], later))
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
