"""Conversations, what was said in them, and all that is held on a person."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from services.followups.store.steps import ADDRESS_LOCK, lock_address, of_address, stop
from services.followups.store.tables import (
    Row,
    chat_address,
    chat_conversations,
    chat_message,
    followup_event,
    imported_grant,
    outbox_table,
)

_ENTER = (
    pg.insert(chat_conversations)
    .values(id=sa.bindparam("id"), session_id=sa.bindparam("session_id"))
    .on_conflict_do_update(
        constraint="chat_conversations_session", set_={"updated_at": sa.func.now()}
    )
    .returning(*(chat_conversations.c[name] for name in ("id", "state", "qualified_at")))
)


async def enter_conversation(tx: AsyncConnection, session_id: str) -> Row:
    """Return the session's conversation, made when it is new, locked until the transaction ends.

    One statement makes or finds it, so two tabs get one conversation, and their turns queue here.
    """
    entered = await tx.execute(_ENTER, {"id": uuid4(), "session_id": session_id})
    row: Row = entered.mappings().one()
    return row


# One statement: a turn is most of what this service does.
_SAVE_TURN = sa.text(
    f"""
WITH saved AS (
    INSERT INTO chat_message (conversation_id, author, body)
    VALUES (:conversation, 'lead', :said), (:conversation, 'bot', :reply) RETURNING id
), kept AS (
    UPDATE chat_conversations
    SET state = :state, email = :email, score = :score, qualified_at = :qualified_at
    WHERE id = :conversation
), found AS (
    INSERT INTO chat_address (email, conversation_id)
    SELECT email, :conversation FROM unnest(:named) AS email ON CONFLICT DO NOTHING
)
SELECT max(id), {ADDRESS_LOCK} FROM saved
"""
).bindparams(
    sa.bindparam("conversation", type_=sa.Uuid),
    sa.bindparam("said", type_=sa.Text),
    sa.bindparam("reply", type_=sa.Text),
    sa.bindparam("state", type_=pg.JSONB),
    sa.bindparam("email", type_=sa.Text),
    sa.bindparam("score", type_=sa.Integer),
    sa.bindparam("qualified_at", type_=sa.DateTime(timezone=True)),
    sa.bindparam("named", type_=pg.ARRAY(sa.Text)),
)


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
    named: Iterable[str],
) -> int:
    """Keep a turn, and take the lock of its address (see lock_address).

    :param named: the addresses in it, by which whoever they belong to finds it again
    :returns: the id of the reply
    """
    given = {
        "conversation": conversation_id,
        "said": said,
        "reply": reply,
        "state": state,
        "email": email,
        "score": score,
        "qualified_at": qualified_at,
        "named": list(named),
    }
    reply_id: int = (await tx.execute(_SAVE_TURN, given)).scalar_one()
    return reply_id


async def said_before(
    tx: AsyncConnection, conversation_id: UUID, reply_id: int, limit: int
) -> list[tuple[str, str]]:
    """Return the last messages before a reply, oldest first: author and text."""
    last = (
        sa.select(chat_message.c.author, chat_message.c.body)
        .where(chat_message.c.conversation_id == conversation_id, chat_message.c.id < reply_id)
        .order_by(chat_message.c.id.desc())
        .limit(limit)
    )
    return [(row.author, row.body) for row in reversed((await tx.execute(last)).all())]


async def reword(tx: AsyncConnection, reply_id: int, reply: str) -> None:
    await tx.execute(
        sa.update(chat_message).where(chat_message.c.id == reply_id).values(body=reply)
    )


async def conversation(tx: AsyncConnection, conversation_id: UUID) -> Row | None:
    """Return it, and let nobody delete it until the transaction ends."""
    found = (
        sa.select(chat_conversations)
        .where(chat_conversations.c.id == conversation_id)
        .with_for_update(read=True, key_share=True)
    )
    return (await tx.execute(found)).mappings().one_or_none()


async def conversation_of_address(tx: AsyncConnection, email: str) -> UUID:
    """Return the address's latest conversation, or one without a chat, made when there is none."""
    latest = (
        sa.select(chat_conversations.c.id)
        .where(chat_conversations.c.email == email)
        .order_by(chat_conversations.c.updated_at.desc())
        .limit(1)
        .with_for_update(read=True, key_share=True)  # nor may it be deleted meanwhile
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


@dataclass(frozen=True, slots=True)
class Imported:
    """A conversation without a chat, as an import knows it."""

    email: str
    state: Mapping[str, Any]
    score: int


async def lock_imported(tx: AsyncConnection, emails: Sequence[str]) -> dict[str, Imported]:
    """Return the conversations without a chat of these addresses; locked, in one order for all."""
    rows = (
        sa.select(*(chat_conversations.c[name] for name in ("email", "state", "score")))
        .where(chat_conversations.c.email.in_(emails), chat_conversations.c.session_id.is_(None))
        .order_by(chat_conversations.c.email)
        .with_for_update()
    )
    return {row.email: Imported(*row) for row in await tx.execute(rows)}


async def save_imported(tx: AsyncConnection, rows: Sequence[Imported]) -> None:
    if not rows:
        return
    ordered = sorted(rows, key=lambda row: row.email)
    saved = pg.insert(chat_conversations).values(
        [{"id": uuid4()} | {name: getattr(row, name) for name in row.__slots__} for row in ordered]
    )
    await tx.execute(
        saved.on_conflict_do_update(
            index_elements=["email"],
            index_where=chat_conversations.c.session_id.is_(None),
            set_={
                "state": saved.excluded.state,
                "score": saved.excluded.score,
                "updated_at": sa.func.now(),
            },
        )
    )


async def known_grants(tx: AsyncConnection, ids: Iterable[UUID]) -> Sequence[UUID]:
    """Return those of the messages by which consent was told of an imported agreement before."""
    known = sa.select(imported_grant.c.id).where(imported_grant.c.id.in_(ids))
    return (await tx.execute(known)).scalars().all()


_KEEP_GRANTS = sa.text("""
INSERT INTO imported_grant (id, conversation_id)
SELECT given.id, chat_conversations.id FROM unnest(:ids, :emails) AS given (id, email)
JOIN chat_conversations ON chat_conversations.email = given.email AND session_id IS NULL
ON CONFLICT DO NOTHING
""").bindparams(
    sa.bindparam("ids", type_=pg.ARRAY(sa.Uuid)), sa.bindparam("emails", type_=pg.ARRAY(sa.Text))
)


async def keep_grants(tx: AsyncConnection, grants: Mapping[UUID, str]) -> None:
    """Remember that consent is told of these agreements of these addresses, which are saved."""
    await tx.execute(_KEEP_GRANTS, {"ids": list(grants), "emails": list(grants.values())})


def _of_chased(conversation_id: UUID, email: str | None) -> sa.ColumnElement[bool]:
    here = chat_conversations.c.id == conversation_id
    return here if email is None else sa.or_(here, chat_conversations.c.email == email)


async def end_chase(
    tx: AsyncConnection, conversation_id: UUID, email: str | None, reason: str
) -> None:
    """Remember for this person that the chase is over; a bounce is not forgotten over staff."""
    ended_by = sa.func.least(chat_conversations.c.chase_ended_by, reason)
    await tx.execute(
        sa.update(chat_conversations)
        .where(_of_chased(conversation_id, email))
        .values(chase_ended_by=ended_by)
    )


async def resume_chase(tx: AsyncConnection, conversation_id: UUID, email: str) -> None:
    """Staff want to write to this person again."""
    await tx.execute(
        sa.update(chat_conversations)
        .where(_of_chased(conversation_id, email), chat_conversations.c.chase_ended_by == "staff")
        .values(chase_ended_by=None)
    )


async def chase_ended_by(tx: AsyncConnection, conversation_id: UUID, email: str) -> str | None:
    """Return why this person is not chased any more; under the lock of the address."""
    why = sa.select(sa.func.min(chat_conversations.c.chase_ended_by)).where(
        _of_chased(conversation_id, email)
    )
    found: str | None = (await tx.execute(why)).scalar_one()
    return found


async def erase(tx: AsyncConnection, email: str) -> int:
    """Delete what is held on an address: conversations, messages, follow-ups, what waits to leave.

    :returns: how many conversations there were
    """
    theirs = sa.select(chat_conversations.c.id).where(_of_person(email))
    await tx.execute(theirs.with_for_update())
    await lock_address(tx, email)
    chased = sa.or_(of_address(email), followup_event.c.conversation_id.in_(theirs))
    await stop(tx, chased, "erased")
    body = outbox_table.c.body
    named = sa.select(sa.cast(chat_conversations.c.id, sa.Text)).where(_of_person(email))
    untold = (  # leads and agreements that nobody has been told of yet
        sa.select(outbox_table.c.id)
        .where(sa.or_(body["email"].astext == email, body["conversation_id"].astext.in_(named)))
        .with_for_update(skip_locked=True)
    )
    await tx.execute(sa.delete(outbox_table).where(outbox_table.c.id.in_(untold)))
    gone = sa.delete(chat_conversations).where(_of_person(email))
    return (await tx.execute(gone)).rowcount


async def forget(tx: AsyncConnection, days: int, limit: int) -> int:
    """Delete some conversations in which nothing was said or sent for so long.

    One that somebody speaks in at this moment is passed over, and so is one whose step may leave.

    :returns: how many; fewer than `limit` when there are no more
    """
    long_ago = sa.func.now() - sa.func.make_interval(0, 0, 0, days)
    recent = sa.select(sa.literal(1)).where(
        followup_event.c.conversation_id == chat_conversations.c.id,
        sa.or_(
            followup_event.c.status.in_(("scheduled", "handed_over")),
            followup_event.c.due_at > long_ago,
            followup_event.c.handed_over_at > long_ago,
        ),
    )
    old = (
        sa.select(chat_conversations.c.id)
        .where(chat_conversations.c.updated_at < long_ago, ~recent.exists())
        .order_by(chat_conversations.c.updated_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    gone = sa.delete(chat_conversations).where(chat_conversations.c.id.in_(old))
    return (await tx.execute(gone)).rowcount


def _of_person(email: str) -> sa.ColumnElement[bool]:
    # A conversation whose person gave another address before or after is theirs as a whole.
    chased = sa.select(followup_event.c.conversation_id).where(of_address(email))
    named = sa.select(chat_address.c.conversation_id).where(chat_address.c.email == email)
    own, here = chat_conversations.c.email == email, chat_conversations.c.id
    return sa.or_(own, here.in_(chased), here.in_(named))


async def addresses(tx: AsyncConnection, offset: int, limit: int) -> Sequence[str]:
    """Read a page of the addresses of which anything is held."""
    held = sa.union(
        sa.select(chat_conversations.c.email).where(chat_conversations.c.email.is_not(None)),
        sa.select(followup_event.c.email),
        sa.select(chat_address.c.email),
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
