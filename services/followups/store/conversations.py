"""Conversations, their messages, and a data subject's records."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.statement import Statement
from libs.common.messaging import outbox
from libs.domain.mentions import without
from services.followups.store import leads as leads_of
from services.followups.store import mails
from services.followups.store.steps import ADDRESS_LOCK, lock_address, of_address, stop
from services.followups.store.tables import (
    Row,
    chat_conversations,
    chat_email,
    chat_message,
    followup_event,
    imported_grant,
    lead,
    lead_act,
    lead_contact,
    lead_submission,
    mail,
    outbox_table,
    undeliverable,
)

_IS_OVER = f"""(
    SELECT {leads_of.TAKES.format(conversation="here.id")} = 0
    FROM lead WHERE lead.id = CAST(here.state ->> 'lead' AS uuid)
        AND here.state ->> 'over' IS DISTINCT FROM here.state ->> 'lead'
) AS is_over"""
# The update locks the row. It is cheap because the column has no index.
_ENTER = Statement(
    sa.text(f"""
INSERT INTO chat_conversations AS here (id, session_id) VALUES (gen_random_uuid(), :session_id)
ON CONFLICT ON CONSTRAINT chat_conversations_session DO UPDATE SET score = here.score
RETURNING id, state, qualified_at, {_IS_OVER}
""")
    .bindparams(sa.bindparam("session_id", type_=sa.Text), leads_of.SINCE)
    .columns(
        *(chat_conversations.c[name] for name in ("id", "state", "qualified_at")),
        sa.column("is_over", sa.Boolean),
    )
)


_REENTER = (
    sa.text(f"""
SELECT id, session_id, state, email, score, qualified_at, {_IS_OVER}
FROM chat_conversations AS here WHERE id = :conversation FOR UPDATE
""")
    .bindparams(sa.bindparam("conversation", type_=sa.Uuid), leads_of.SINCE)
    .columns(
        *(
            chat_conversations.c[name]
            for name in ("id", "session_id", "state", "email", "score", "qualified_at")
        ),
        sa.column("is_over", sa.Boolean),
    )
)


async def reenter(
    tx: AsyncConnection, conversation_id: UUID, since: datetime
) -> dict[str, Any] | None:
    """Lock a conversation that is known by its id, to add to it (see enter_conversation)."""
    found = await tx.execute(_REENTER, {"conversation": conversation_id, "since": since})
    row = found.one_or_none()
    return None if row is None else row._asdict()


async def enter_conversation(
    tx: AsyncConnection, session_id: str, since: datetime
) -> dict[str, Any]:
    """Return the session's conversation, created if new, and lock it.

    One statement finds or creates it, so two tabs share one conversation and their turns queue.

    :param since: as for `leads.find`
    :returns: it, and `is_over`: its request is closed or old, and what is said next is about
        another; once for each request
    """
    given = {"session_id": session_id, "since": since}
    entered: dict[str, Any] = (await _ENTER.execute(tx, given)).one()._asdict()
    return entered | {"qualified_at": None} if entered["is_over"] else entered


# One statement, because turns are most of this service's load. The parts that write leads and
# messages are left out when there are none: the outbox's trigger notifies the relay even if nothing
# was inserted.
_SAVE_TURN = f"""
WITH saved AS (
    INSERT INTO chat_message (conversation_id, author, body)
    VALUES (:conversation, 'lead', :said), (:conversation, 'bot', :reply) RETURNING id
), kept AS (
    UPDATE chat_conversations SET state = :state, email = :email, score = :score,
        qualified_at = :qualified_at, updated_at = now()
    WHERE id = :conversation
), found AS (
    INSERT INTO chat_email (email, conversation_id)
    SELECT email, :conversation FROM unnest(:named) AS email ON CONFLICT DO NOTHING
){{more}}
SELECT max(id), {ADDRESS_LOCK} FROM saved
"""
_TURN = (
    sa.bindparam("conversation", type_=sa.Uuid),
    sa.bindparam("said", type_=sa.Text),
    sa.bindparam("reply", type_=sa.Text),
    sa.bindparam("state", type_=pg.JSONB),
    sa.bindparam("email", type_=sa.Text),
    sa.bindparam("score", type_=sa.Integer),
    sa.bindparam("qualified_at", type_=sa.DateTime(timezone=True)),
    sa.bindparam("named", type_=pg.ARRAY(sa.Text)),
)


@cache
def _saving(*, notifies: bool, changes_leads: bool) -> Statement:
    more = f", notified AS ({outbox.ADD})" if notifies else ""
    parameters: list[sa.BindParameter[Any]] = [*outbox.PARAMETERS] if notifies else []
    if changes_leads:
        more += f", {leads_of.SAVE}"
        parameters.append(leads_of.LEADS)
    return Statement(sa.text(_SAVE_TURN.format(more=more)).bindparams(*_TURN, *parameters))


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
    leads: Sequence[leads_of.Change],
    outgoing: Sequence[outbox.Outgoing],
) -> None:
    """Store a turn, and lock its address (see lock_address).

    :param named: addresses in the message; an export or erasure of any of them finds this turn
    :param outgoing: messages for the outbox
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
    if outgoing:
        given["rows"] = outbox.rows(outgoing)
    if leads:
        given["leads"] = leads_of.rows(leads)
    saving = _saving(notifies=bool(outgoing), changes_leads=bool(leads))
    await saving.execute(tx, given)


async def transcript(
    tx: AsyncConnection, conversation_id: UUID, limit: int
) -> list[tuple[str, str, datetime]]:
    """Return the last messages of a conversation, oldest first: author, text, time."""
    last = (
        sa.select(chat_message.c.author, chat_message.c.body, chat_message.c.created_at)
        .where(chat_message.c.conversation_id == conversation_id)
        .order_by(chat_message.c.id.desc())
        .limit(limit)
    )
    return [(row[0], row[1], row[2]) for row in reversed((await tx.execute(last)).all())]


async def conversation(tx: AsyncConnection, conversation_id: UUID) -> Row | None:
    """Return the conversation, protected from deletion until the transaction ends."""
    found = (
        sa.select(chat_conversations)
        .where(chat_conversations.c.id == conversation_id)
        .with_for_update(read=True, key_share=True)
    )
    return (await tx.execute(found)).mappings().one_or_none()


async def conversation_of_address(tx: AsyncConnection, email: str) -> UUID:
    """Return the latest conversation of an address; create one without a chat if there is none."""
    latest = (
        sa.select(chat_conversations.c.id)
        .where(chat_conversations.c.email == email)
        .order_by(chat_conversations.c.updated_at.desc())
        .limit(1)
        .with_for_update(read=True, key_share=True)  # protects it from deletion
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
    """A conversation that an import creates, without a chat."""

    email: str
    state: Mapping[str, Any]
    score: int


async def lock_imported(tx: AsyncConnection, emails: Sequence[str]) -> dict[str, Imported]:
    """Return and lock the imported conversations of these addresses, in one lock order."""
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
    """Return those of these grant messages that consent was already sent."""
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
    """Remember that these grants were sent to consent; their conversations must exist."""
    await tx.execute(_KEEP_GRANTS, {"ids": list(grants), "emails": list(grants.values())})


def _of_recipient(conversation_id: UUID, email: str | None) -> sa.ColumnElement[bool]:
    here = chat_conversations.c.id == conversation_id
    return here if email is None else sa.or_(here, chat_conversations.c.email == email)


async def end_followups(
    tx: AsyncConnection, conversation_id: UUID, email: str | None, reason: str
) -> None:
    """Record why follow-ups ended for this recipient; `staff` never replaces `bounce`."""
    ended_by = sa.func.least(chat_conversations.c.followups_ended_by, reason)
    await tx.execute(
        sa.update(chat_conversations)
        .where(_of_recipient(conversation_id, email))
        .values(followups_ended_by=ended_by)
    )


async def resume_followups(
    tx: AsyncConnection, conversation_id: UUID, email: str | None, *, waits: bool = True
) -> None:
    """Allow mails to this person again, if staff ended them.

    :param waits: else a conversation that another turn has locked keeps its bar: that turn waits
        for locks of this transaction
    """
    barred = sa.select(chat_conversations.c.id).where(
        _of_recipient(conversation_id, email), chat_conversations.c.followups_ended_by == "staff"
    )
    await tx.execute(
        sa.update(chat_conversations)
        .where(chat_conversations.c.id.in_(barred.with_for_update(skip_locked=not waits)))
        .values(followups_ended_by=None)
    )


async def followups_ended_by(tx: AsyncConnection, conversation_id: UUID, email: str) -> str | None:
    """Return why follow-ups ended, if they did. The caller has the address lock."""
    if (await mails.run(tx, "is_undeliverable", email=email)).scalar():
        return "bounce"
    why = sa.select(sa.func.min(chat_conversations.c.followups_ended_by)).where(
        _of_recipient(conversation_id, email)
    )
    found: str | None = (await tx.execute(why)).scalar_one()
    return found


@dataclass(frozen=True, slots=True)
class Subject:
    """A data subject: an e-mail address or a phone number."""

    email: str | None
    phone: str | None = None

    @property
    def contacts(self) -> list[str]:
        """As in lead_contact."""
        given = {"email": self.email, "phone": self.phone}
        return [f"{kind}:{value}" for kind, value in given.items() if value is not None]


@dataclass(frozen=True, slots=True)
class Trace:
    """The conversations and phone numbers that link a data subject to alerts."""

    conversations: frozenset[UUID]
    phones: frozenset[str]


async def trace(tx: AsyncConnection, subject: Subject) -> Trace:
    rows = (
        await tx.execute(
            sa.select(chat_conversations.c.id, _PHONE.label("phone")).where(_of_subject(subject))
        )
    ).all()
    return Trace(
        frozenset(row.id for row in rows), frozenset(row.phone for row in rows if row.phone)
    )


async def erase(
    tx: AsyncConnection,
    subject: Subject,
    named: Iterable[UUID],
    named_in: Callable[[str], Collection[str]],
) -> tuple[int, int]:
    """Delete a data subject's conversations, messages, follow-ups, leads and outbox messages.

    If somebody else's conversation names the subject, only the address is struck out; a lead that
    began in one loses what the subject added.

    :param named: all conversations of the trace, including deleted ones
    :param named_in: returns the addresses in a message, in whatever spelling
    :returns: the number of conversations deleted, and of outbox messages that the relay is
        publishing at this moment and that therefore remain
    """
    theirs = sa.select(chat_conversations.c.id).where(_of_subject(subject))
    talks = await tx.execute(theirs.add_columns(chat_conversations.c.state).with_for_update())
    await tx.execute(sa.delete(lead).where(lead.c.conversation_id.in_(theirs)))
    await _take_out(tx, subject, {row.id: row.state for row in talks})
    enrolled: sa.ColumnElement[bool] = followup_event.c.conversation_id.in_(theirs)
    if subject.email is not None:
        await lock_address(tx, subject.email)
        enrolled = sa.or_(of_address(subject.email), enrolled)
    await stop(tx, enrolled, "erased")
    body, ids = outbox_table.c.body, [str(each) for each in named]
    about = sa.or_(  # unpublished leads, grants and mails
        body["email"].astext.in_([subject.email] if subject.email else []),
        body["conversation_id"].astext.in_(ids),
        body["payload"]["conversation_id"].astext.in_(ids),
    )
    if subject.email is not None:
        await _strike_out(tx, subject.email, named_in)
        await mails.run(tx, "erase", email=subject.email)
    free = sa.select(outbox_table.c.id).where(about).with_for_update(skip_locked=True)
    await tx.execute(sa.delete(outbox_table).where(outbox_table.c.id.in_(free)))
    left = await tx.scalar(sa.select(sa.func.count()).select_from(outbox_table).where(about))
    await tx.execute(sa.delete(lead_submission).where(_sent_by(subject)))
    gone = sa.delete(chat_conversations).where(_of_subject(subject))
    return (await tx.execute(gone)).rowcount, int(left or 0)


async def _take_out(
    tx: AsyncConnection, subject: Subject, talks: Mapping[UUID, Mapping[str, Any]]
) -> None:
    """Take what somebody added out of the leads that began elsewhere.

    Anyone may add to a lead who knows its number: they must not be able to delete it.
    """
    sent = sa.select(lead_submission.c.id).where(lead_submission.c.conversation_id.in_(talks))
    sources = {
        *map(str, talks),
        *(f"{leads_of.OF_FORM}{each}" for each in (await tx.execute(sent)).scalars()),
    }
    gone: dict[str, list[Any]] = {
        "email": [subject.email],
        "phone": [subject.phone],
        "name": [state["facts"].get("name") for state in talks.values() if "facts" in state],
    }

    def rest(known: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in known.items() if value not in gone.get(name, ())}
        also = [rest(each) for each in known.get("also", ()) if each["from"] not in sources]
        return kept | ({"also": also} if "also" in known else {})

    theirs = lead_contact.c.contact.in_(subject.contacts)
    given = sa.or_(theirs, lead_contact.c.conversation_id.in_(talks))
    added_to = [UUID(state["lead"]) for state in talks.values() if state.get("lead")]
    known_by = sa.or_(
        lead.c.id.in_(sa.select(lead_contact.c.lead_id).where(given)), lead.c.id.in_(added_to)
    )
    found = sa.select(lead).where(known_by).order_by(lead.c.created_at, lead.c.id)
    for row in (await tx.execute(found.with_for_update())).mappings().all():
        told = (name for name in ("known", "notified") if row[name] is not None)
        values: dict[str, Any] = {name: rest(row[name]) for name in told}
        own = sa.select(sa.func.string_agg(chat_message.c.body, " ")).where(
            chat_message.c.conversation_id == row["conversation_id"],
            chat_message.c.author == "lead",
        )
        values["heard"] = sa.func.right(sa.func.coalesce(own.scalar_subquery(), ""), 4000)
        if row["heard_in"] in talks:
            values |= {"heard_in": row["conversation_id"], "said": []}
        await tx.execute(sa.update(lead).where(lead.c.id == row["id"]).values(values))
        edits = sa.select(lead_act).where(lead_act.c.lead_id == row["id"])
        for act in (await tx.execute(edits.where(lead_act.c.kind == "edit"))).mappings().all():
            data = act["data"] | {name: rest(act["data"][name]) for name in ("before", "after")}
            left = sa.update(lead_act).where(lead_act.c.id == act["id"])
            await tx.execute(left.values(data=data))
    await tx.execute(sa.delete(lead_contact).where(theirs))


async def _strike_out(
    tx: AsyncConnection, email: str, named_in: Callable[[str], Collection[str]]
) -> None:
    """Erase the mentions of an address, not the people who made them."""
    theirs = sa.not_(_of_subject(Subject(email)))
    talks = sa.select(chat_email.c.conversation_id).where(chat_email.c.email == email)
    here = chat_conversations
    locked = sa.select(here.c.id, here.c.state).where(here.c.id.in_(talks), theirs)
    ids = []
    for row in await tx.execute(locked.with_for_update()):
        ids.append(row.id)
        struck = sa.update(here).where(here.c.id == row.id)
        await tx.execute(struck.values(state=without(row.state, [email], named_in)))
    said = sa.select(chat_message.c.id, chat_message.c.body)
    for row in await tx.execute(said.where(chat_message.c.conversation_id.in_(ids))):
        body = without(row.body, [email], named_in)
        if body != row.body:
            struck = sa.update(chat_message).where(chat_message.c.id == row.id)
            await tx.execute(struck.values(body=body))
    texts = (lead.c.known, lead.c.notified, lead.c.said, lead.c.heard)
    about = sa.or_(lead.c.conversation_id.in_(ids), lead.c.heard_in.in_(ids))
    for found in (await tx.execute(sa.select(lead.c.id, *texts).where(about))).mappings():
        values = {column.name: without(found[column.name], [email], named_in) for column in texts}
        await tx.execute(sa.update(lead).where(lead.c.id == found["id"]).values(values))
    # Staff may have named anyone, in a note about anyone.
    noted = (lead_act.c.text, lead_act.c.data)
    names = sa.or_(*(sa.cast(each, sa.Text).icontains(email, autoescape=True) for each in noted))
    for act in (await tx.execute(sa.select(lead_act.c.id, *noted).where(names))).mappings():
        values = {each.name: without(act[each.name], [email], named_in) for each in noted}
        await tx.execute(sa.update(lead_act).where(lead_act.c.id == act["id"]).values(values))
    await tx.execute(
        sa.delete(chat_email).where(
            chat_email.c.email == email, chat_email.c.conversation_id.in_(ids)
        )
    )


async def own(tx: AsyncConnection, subject: Subject) -> Sequence[Row]:
    """Lock and return the conversations of this address, or of this number and no address.

    People who live together share a number.
    """
    c = chat_conversations.c
    alone = sa.and_(c.email.is_(None), _PHONE.in_([subject.phone]))
    theirs = c.email == subject.email if subject.email else alone
    locked = sa.select(chat_conversations).where(theirs).order_by(c.id).with_for_update()
    rows = await tx.execute(locked)
    return rows.mappings().all()


async def correct(
    tx: AsyncConnection, row: Row, state: Mapping[str, Any], email: str | None
) -> None:
    """Store a state that was corrected. An address has one conversation without a chat: this one
    gets a session of its own if the address is new to it.
    """
    values: dict[str, Any] = {"state": state, "email": email}
    if email != row["email"] and row["session_id"] is None:
        values["session_id"] = str(uuid4())
    this = chat_conversations.c.id == row["id"]
    await tx.execute(sa.update(chat_conversations).where(this).values(**values))


async def forget(tx: AsyncConnection, days: int, limit: int) -> int:
    """Delete a batch of conversations without activity for this many days.

    A conversation that is locked by a turn or has a pending step is skipped.

    :returns: how many were deleted; fewer than `limit` if none are left
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
    # They go with the conversation: a person may have come back in another one, or sent a form.
    leads = sa.select(sa.literal(1)).where(
        sa.or_(
            lead.c.conversation_id == chat_conversations.c.id,
            lead.c.id.in_(
                sa.select(lead_contact.c.lead_id)
                .where(lead_contact.c.conversation_id == chat_conversations.c.id)
                .correlate(chat_conversations)
            ),
        ),
        lead.c.updated_at > long_ago,
    )
    forms = sa.select(sa.literal(1)).where(
        lead_submission.c.conversation_id == chat_conversations.c.id,
        lead_submission.c.accepted_at > long_ago,
    )
    old = (
        sa.select(chat_conversations.c.id)
        .where(
            chat_conversations.c.updated_at < long_ago,
            ~recent.exists(),
            ~leads.exists(),
            ~forms.exists(),
        )
        .order_by(chat_conversations.c.updated_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    gone = sa.delete(chat_conversations).where(chat_conversations.c.id.in_(old))
    return (await tx.execute(gone)).rowcount


_PHONE = sa.literal_column("chat_conversations.state -> 'facts' ->> 'phone'", sa.Text)


def _of_subject(subject: Subject) -> sa.ColumnElement[bool]:
    # The whole conversation belongs to the person, even if it names several addresses; one with
    # another contact only mentions this one.
    here = chat_conversations.c.id
    sent = here.in_(
        sa.select(lead_submission.c.conversation_id).where(
            _sent_by(subject), lead_submission.c.conversation_id.is_not(None)
        )
    )
    if subject.email is None:
        return sa.or_(_PHONE.in_([subject.phone]), sent)
    own = chat_conversations.c.email == subject.email
    enrolled = sa.select(followup_event.c.conversation_id).where(of_address(subject.email))
    named = sa.select(chat_email.c.conversation_id).where(chat_email.c.email == subject.email)
    has_none = sa.and_(chat_conversations.c.email.is_(None), _PHONE.is_(None))
    return sa.or_(own, here.in_(enrolled), sa.and_(here.in_(named), has_none), sent)


def _sent_by(subject: Subject) -> sa.ColumnElement[bool]:
    if subject.email is None:
        return lead_submission.c.phone.in_([subject.phone])
    return lead_submission.c.email == subject.email


async def addresses(tx: AsyncConnection, offset: int, limit: int) -> Sequence[str]:
    """Read a page of the e-mail addresses and phone numbers that have records."""
    held = sa.union(
        sa.select(chat_conversations.c.email).where(chat_conversations.c.email.is_not(None)),
        sa.select(followup_event.c.email),
        sa.select(chat_email.c.email),
        sa.select(_PHONE).select_from(chat_conversations).where(_PHONE.is_not(None)),
        sa.select(lead_submission.c.email).where(lead_submission.c.email.is_not(None)),
        sa.select(lead_submission.c.phone).where(lead_submission.c.phone.is_not(None)),
        sa.select(mail.c.email).where(mail.c.email.is_not(None)),
        sa.select(undeliverable.c.email),
    ).subquery()
    page = sa.select(held.c.email).order_by(held.c.email).offset(offset).limit(limit)
    return (await tx.execute(page)).scalars().all()


HELD = ("conversations", "messages", "followups", "leads", "lead_acts", "submissions", "mails")


async def held(
    tx: AsyncConnection, subject: Subject, kind: str, offset: int, limit: int
) -> Sequence[Row]:
    """Read a page of a data subject's records of one kind (see HELD)."""
    conversations = sa.select(chat_conversations.c.id).where(_of_subject(subject))
    records = {
        "conversations": sa.select(chat_conversations)
        .where(_of_subject(subject))
        .order_by(chat_conversations.c.created_at, chat_conversations.c.id),
        "messages": sa.select(chat_message)
        .where(chat_message.c.conversation_id.in_(conversations))
        .order_by(chat_message.c.id),
        "followups": sa.select(followup_event)
        .where(
            sa.or_(
                followup_event.c.email.in_([subject.email] if subject.email else []),
                followup_event.c.conversation_id.in_(conversations),
            )
        )
        .order_by(followup_event.c.created_at, followup_event.c.id),
        "leads": sa.select(lead)
        .where(lead.c.conversation_id.in_(conversations))
        .order_by(lead.c.created_at, lead.c.id),
        "lead_acts": sa.select(lead_act)
        .where(
            lead_act.c.lead_id.in_(
                sa.select(lead.c.id).where(lead.c.conversation_id.in_(conversations))
            )
        )
        .order_by(lead_act.c.id),
        "submissions": sa.select(lead_submission)
        .where(sa.or_(_sent_by(subject), lead_submission.c.conversation_id.in_(conversations)))
        .order_by(lead_submission.c.accepted_at, lead_submission.c.id),
        "mails": sa.select(mail)
        .where(sa.or_(mail.c.email == subject.email, mail.c.conversation_id.in_(conversations)))
        .order_by(mail.c.received_at, mail.c.key),
    }
    return (await tx.execute(records[kind].offset(offset).limit(limit))).mappings().all()
