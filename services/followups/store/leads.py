"""Leads and other requests, found by conversation or contact."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from libs.common.database.statement import Statement
from libs.domain.scopes import KEY, PERSON
from services.followups.store.tables import (
    Row,
    chat_conversations,
    lead,
    lead_act,
    lead_contact,
    lead_submission,
)

OF_FORM = "form:"
"""So begins the source of a wish that came with a form in a conversation that has a lead."""
_texts = pg.ARRAY(sa.Text)
_time = sa.DateTime(timezone=True)
_run = Queries(
    Path(__file__).with_suffix(".sql"),
    {"names": _texts, "since": _time, "last": _time, "until": _time, "zone": sa.Text()},
)


class Lead(NamedTuple):
    id: UUID
    topic: str
    conversation_id: UUID
    heard_in: UUID
    language: str
    score: int
    known: Mapping[str, Any]
    notified: Mapping[str, Any] | None
    said: Sequence[str]
    version: int
    due_at: datetime | None
    previous: Mapping[str, Any] | None
    edited: Sequence[str]
    """Facts that staff have corrected."""
    heard: str
    """The person's words that staff were told."""

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Lead":
        return cls._make(row[name] for name in cls._fields)


# How a lead takes what a conversation says: 2: as open, 1: as lost here, where another company was
# chosen, 0: another request follows it.
TAKES = """
CASE WHEN lead.updated_at <= :since THEN 0 WHEN lead.state IN ('new', 'taken') THEN 2
    WHEN lead.state_by = 'chat' AND lead.conversation_id = {conversation} THEN 1 ELSE 0 END
"""
SINCE = sa.bindparam("since", type_=sa.DateTime(timezone=True))
_COLUMNS = (*Lead._fields, "state", "state_by", "owner")
_CONTACTS = sa.bindparam("contacts", type_=_texts)
# In sorted order, so that two sessions with the same contacts cannot deadlock.
_LOCK_CONTACTS = sa.text("""
SELECT pg_advisory_xact_lock(hashtext('followups.contact'), hashtext(contact))
FROM (SELECT contact FROM unnest(:contacts) AS contact ORDER BY contact) AS ordered
""").bindparams(_CONTACTS)
_CHOOSE = f"""
SELECT {", ".join(_COLUMNS)}, takes FROM lead, LATERAL (SELECT
    {TAKES.format(conversation=":conversation")} AS takes) AS how
WHERE {{which}} LIMIT 1 FOR UPDATE OF lead
"""
_CONVERSATION = sa.bindparam("conversation", type_=sa.Uuid)
_CHOSEN = (*(lead.c[name] for name in _COLUMNS), sa.column("takes", sa.Integer))
# The newest that is open, and before it the conversation's own: it stays the same lead, whatever
# contact is added.
_FIND = Statement(
    sa.text(
        _CHOOSE.format(
            which="""topic = :topic AND (conversation_id = :conversation OR id = :known
    OR id = ANY(ARRAY(SELECT lead_id FROM lead_contact WHERE contact = ANY(:contacts))))
ORDER BY takes DESC, takes > 0 AND id = :known DESC,
    takes > 0 AND conversation_id = :conversation DESC, created_at DESC, id"""
        )
    )
    .bindparams(
        sa.bindparam("topic", type_=sa.Text),
        sa.bindparam("known", type_=sa.Uuid),
        _CONVERSATION,
        SINCE,
        _CONTACTS,
    )
    .columns(*_CHOSEN),
    after=_LOCK_CONTACTS,  # not in one statement: the snapshot must be newer than the locks
)
_NEXT = (
    sa.text(_CHOOSE.format(which="previous ->> 'id' = :id"))
    .bindparams(sa.bindparam("id", type_=sa.Text), _CONVERSATION, SINCE)
    .columns(*_CHOSEN)
)


async def find(
    tx: AsyncConnection,
    conversation_id: UUID,
    topic: str,
    *,
    known_id: UUID | None,
    contacts: Sequence[str],
    since: datetime,
) -> dict[str, Any] | None:
    """Find and lock the lead of this conversation, or of another one with the same contact.

    The contacts are locked first: another session may be about to create their lead. One that gave
    another contact of the same lead has locked that lead; what it created is read after that.

    :param since: an open lead unchanged since then is over
    :returns: the lead, with `takes`: how it takes what is said (see TAKES)
    """
    here = {"conversation": conversation_id, "since": since}
    given = here | {"topic": topic, "known": known_id, "contacts": list(contacts)}
    found = await _FIND.execute(tx, given)
    row: dict[str, Any] | None = found.one()._asdict() if found else None
    while row is not None and row["takes"] == 0:
        later = await tx.execute(_NEXT, here | {"id": str(row["id"])})
        if (follows := later.mappings().one_or_none()) is None:
            return row
        row = dict(follows)
    return row


async def ids(tx: AsyncConnection, conversation_id: UUID, topic: str) -> Sequence[UUID]:
    """Return the ids of a conversation's requests of a topic."""
    here = lead.c.conversation_id == conversation_id
    found = await tx.execute(sa.select(lead.c.id).where(here, lead.c.topic == topic))
    return found.scalars().all()


async def lock(
    tx: AsyncConnection, conversation_ids: Sequence[UUID], topic: str, contacts: Iterable[str]
) -> None:
    """Lock the requests that began in these conversations as `find` does: contacts, then from
    older to newer.
    """
    await tx.execute(_LOCK_CONTACTS, {"contacts": list(contacts)})
    here = sa.and_(lead.c.conversation_id.in_(conversation_ids), lead.c.topic == topic)
    found = sa.select(lead.c.id).where(here).order_by(lead.c.created_at, lead.c.id)
    await tx.execute(found.with_for_update())


@dataclass(frozen=True, slots=True)
class Change:
    """A lead to insert or update, and how its contacts change."""

    row: Lead
    contacts: Sequence[str] = ()
    """They identify it."""
    dropped: Sequence[str] = ()
    """These no longer identify it, nor any lead for which this conversation gave them."""
    is_heard: bool = False
    """The person says something: it is young again."""


SAVE = """
leads AS (
    SELECT * FROM jsonb_to_recordset(:leads) AS given (id uuid, topic text, conversation_id uuid,
        heard_in uuid, language text, score int, known jsonb, notified jsonb, said jsonb,
        version int, due_at timestamptz, previous jsonb, edited text[], heard text,
        contacts text[], dropped text[], is_heard bool)
), saved_leads AS (
    INSERT INTO lead (id, topic, conversation_id, heard_in, language, score, known, notified, said,
        version, due_at, previous, edited, heard, state, state_by, updated_at, consent_at)
    SELECT id, topic, conversation_id, heard_in, language, score, known, notified, said, version,
        due_at, previous, edited, heard, CASE WHEN known ? 'lost' THEN 'lost' ELSE 'new' END,
        CASE WHEN known ? 'lost' THEN 'chat' END,
        CASE WHEN is_heard THEN now() ELSE '-infinity' END,
        (SELECT consent_at FROM lead AS old WHERE old.id = CAST(leads.previous ->> 'id' AS uuid)
            AND old.known ->> 'email' = leads.known ->> 'email')
    FROM leads
    ON CONFLICT (id) DO UPDATE SET heard_in = excluded.heard_in, language = excluded.language,
        score = excluded.score, known = excluded.known, notified = excluded.notified,
        said = excluded.said, version = excluded.version, due_at = excluded.due_at,
        edited = excluded.edited, heard = excluded.heard,
        revision = lead.revision + CAST(lead.known IS DISTINCT FROM excluded.known AS int),
        updated_at = greatest(lead.updated_at, excluded.updated_at)
), dropped_contacts AS (
    DELETE FROM lead_contact USING leads WHERE contact = ANY(dropped)
        AND (lead_contact.conversation_id = leads.heard_in
            OR lead_id = leads.id AND leads.conversation_id = leads.heard_in)
), saved_contacts AS (
    INSERT INTO lead_contact (contact, lead_id, conversation_id)
    SELECT contact, id, heard_in FROM leads, unnest(contacts) AS contact ORDER BY contact
    ON CONFLICT DO NOTHING
)
"""
"""The SQL of `save`, to include in another statement; its parameter is LEADS."""
LEADS = sa.bindparam("leads", type_=pg.JSONB)
_SAVE = Statement(sa.text(f"WITH {SAVE} SELECT").bindparams(LEADS))


def rows(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Return the value of LEADS."""
    return [
        change.row._asdict()
        | {name: str(getattr(change.row, name)) for name in _UUIDS}
        | {
            "due_at": change.row.due_at and change.row.due_at.isoformat(),
            "edited": list(change.row.edited),
            "contacts": list(change.contacts),
            "dropped": list(change.dropped),
            "is_heard": change.is_heard,
        }
        for change in changes
    ]


_UUIDS = ("id", "conversation_id", "heard_in")


async def save(tx: AsyncConnection, changes: Sequence[Change]) -> None:
    await _SAVE.execute(tx, {"leads": rows(changes)})


async def due(tx: AsyncConnection, limit: int) -> Sequence[Row]:
    """Return and lock leads that staff are due to be notified of; safe for concurrent replicas.

    Each with the `session_id` of the conversation of its last change.
    """
    heard_in = lead.c.heard_in == chat_conversations.c.id
    taken = (
        sa.select(lead, chat_conversations.c.session_id)
        .join(chat_conversations, heard_in, isouter=True)
        .where(sa.text("lead.due_at IS NOT NULL"), lead.c.due_at <= sa.func.now())
        .order_by(lead.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=lead)
    )
    return (await tx.execute(taken)).mappings().all()


async def calls(tx: AsyncConnection, limit: int) -> Sequence[Row]:
    """Return planned calls whose time has come, once; safe for concurrent replicas.

    Each is its lead, with the `plan` and who `planned_by` it.
    """
    c = lead_act.c
    plan = (
        sa.select(c.text, c.by)
        .where(c.lead_id == lead.c.id, c.kind == "call")
        .order_by(c.id.desc())
        .limit(1)
        .lateral("last")
    )
    due = (
        sa.select(lead, plan.c.text.label("plan"), plan.c.by.label("planned_by"))
        .join(plan, sa.true())
        .where(lead.c.call_at <= sa.func.now(), lead.c.reminded_at.is_(None))
        .where(lead.c.state.in_(("new", "taken")))
        .order_by(lead.c.call_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=lead)
    )
    rows = (await tx.execute(due)).mappings().all()
    told = sa.update(lead).where(lead.c.id.in_([row["id"] for row in rows]))
    await tx.execute(told.values(reminded_at=sa.func.now()))
    return rows


_later = lead.alias("later")
_FOLLOWER = (
    sa.select(_later.c.id)
    .where(_later.c.previous["id"].astext == sa.cast(lead.c.id, sa.Text))
    .scalar_subquery()
    .label("next")
)
"""The request that follows a lead."""
_FORM = (
    sa.select(lead_submission.c.form)
    .where(lead_submission.c.lead_id == lead.c.id)
    .order_by(lead_submission.c.accepted_at)
    .limit(1)
    .scalar_subquery()
    .label("form")
)


async def one(tx: AsyncConnection, lead_id: UUID, *, locked: bool = False) -> Row | None:
    found = sa.select(lead, _FOLLOWER, _FORM).where(lead.c.id == lead_id)
    found = found.with_for_update(of=lead) if locked else found
    return (await tx.execute(found)).mappings().one_or_none()


_WORDS = sa.func.lead_words(lead.c.known, lead.c.heard)


def _escaped(word: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", word)


async def page(
    tx: AsyncConnection, wanted: Mapping[str, Any], after: UUID | None, limit: int
) -> Sequence[Row]:
    """Read a page of the leads that match all filters, newest first unless `order` differs."""
    wanted = dict(wanted)
    oldest = wanted.pop("order", "newest") == "oldest"
    filters: dict[str, Callable[[Any], sa.ColumnElement[bool]]] = {
        "state": lambda state: lead.c.state == state,
        "topic": lambda topic: lead.c.topic == topic,
        "since": lambda at: lead.c.created_at >= at,
        "until": lambda at: lead.c.created_at < at,
        "min_score": lambda score: lead.c.score >= score,
        "email": lambda email: lead.c.known["email"].astext == email,
        "phone": lambda phone: lead.c.known["phone"].astext == phone,
        "q": lambda words: sa.and_(*(_WORDS.like(f"%{_escaped(word)}%") for word in words)),
        "owner": lambda owner: lead.c.owner == owner,
        "call_before": lambda at: sa.and_(lead.c.call_at < at, lead.c.state == "taken"),
        "person": lambda contact: lead.c.id.in_(
            sa.select(lead_contact.c.lead_id).where(
                lead_contact.c.contact.in_([f"email:{contact}", f"phone:{contact}"])
            )
        ),
    }
    place = sa.tuple_(lead.c.created_at, lead.c.id)
    ends = (lead.c.created_at, lead.c.id)
    listed = (
        sa.select(lead, _FOLLOWER, _FORM)
        .where(*(filters[name](value) for name, value in wanted.items()))
        .order_by(*(ends if oldest else (end.desc() for end in ends)))
        .limit(limit)
    )
    if after is not None:
        cursor = lead.alias("after")
        found = sa.select(cursor.c.created_at, cursor.c.id).where(cursor.c.id == after)
        last = found.scalar_subquery()
        listed = listed.where(place > last if oldest else place < last)
    return (await tx.execute(listed)).mappings().all()


_HEAR_CONSENT = sa.text("""
UPDATE lead SET known = known || jsonb_build_object('may_mail', may), consent_at = since,
    due_at = CASE WHEN notified IS NULL OR coalesce(known ->> 'may_mail', 'refused') = may
        THEN due_at ELSE coalesce(due_at, now() + patience) END
FROM lead_contact, (VALUES (CAST(:may_mail AS text), CAST(:at AS timestamptz),
    CAST(:patience AS interval))) AS heard (may, since, patience)
WHERE contact = 'email:' || :email AND lead_id = lead.id AND known ->> 'email' = :email
    AND coalesce(consent_at < since, true)
""")


async def hear_consent(
    tx: AsyncConnection, email: str, may_mail: str, at: datetime, patience: timedelta
) -> None:
    """Note the state of this address's consent since then, unless a newer one is noted.

    If staff know another state, they are notified within `patience`. It is not news that somebody
    who never agreed wants no mails.
    """
    values = {"may_mail": may_mail, "at": at, "patience": patience, "email": email}
    await tx.execute(_HEAR_CONSENT, values)


def person(by: str | None) -> str | None:
    """Return the name in `state_by`; None for a key, or a role for want of a name."""
    by = by or ""
    is_named = not by.startswith(KEY) and by not in {"", "chat", "staff", "service", "admin"}
    return re.sub(rf"^{PERSON}\S+ ", "", by) if is_named else None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts; `by_time` and `won` by day, and of `this_week` and the `week_before`."""

    open: Mapping[tuple[str, str], Any]
    """By topic and state."""
    calls: int
    by_time: Mapping[date | str, Any]
    won: Mapping[date | str, int]


async def stats(
    tx: AsyncConnection, names: Sequence[str], zone: str, since: datetime, last: datetime,
    until: datetime,
) -> Stats:  # fmt: skip
    """Count leads.

    :param names: of the person who asks
    :param since, last: when the first, and the last, of two weeks began
    """
    times = {"zone": zone, "since": since, "last": last}
    came = await _run(tx, "by_time", **times)
    won = await _run(tx, "won", **times)
    calls = await _run(tx, "calls", names=list(names), until=until)
    found = await _run(tx, "open", names=list(names))
    return Stats(
        {(row.topic, row.state): row for row in found},
        calls.scalar_one(),
        {_when(row): row for row in came},
        {_when(row): row.won for row in won},
    )


def _when(row: Any) -> date | str:
    return row.day or ("this_week" if row.is_last else "week_before")
