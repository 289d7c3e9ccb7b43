"""Conversations, their messages, and a data subject's records."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from libs.domain.mentions import without
from services.followups.store import leads as leads_of
from services.followups.store import sql
from services.followups.store.sql import run
from services.followups.store.steps import lock_address, stop
from services.followups.store.tables import Row


async def enter_conversation(
    tx: AsyncConnection, session_id: str, since: datetime
) -> dict[str, Any]:
    """Return the session's conversation, created if new, and lock it.

    :param since: as for `leads.find`
    :returns: it, and `is_over`: its request is closed or old, and what is said next is about
        another; once for each request
    """
    [entered] = await sql.rows(tx, "enter", session_id=session_id, since=since)
    return {**entered, **({"qualified_at": None} if entered["is_over"] else {})}


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
    commits: bool,
) -> None:
    """Store a turn, and lock its address (see lock_address).

    :param commits: nothing follows in this transaction
    :param named: addresses in the message; an export or erasure of any of them finds this turn
    :param outgoing: messages for the outbox
    """
    given: dict[str, Any] = {"conversation": conversation_id, "said": said, "reply": reply}
    given |= {"state": state, "email": email, "score": score, "qualified_at": qualified_at}
    changes: list[str] = []
    if outgoing:
        given |= {"rows": outbox.rows(outgoing), "later": 0.0}
        changes.append("messages")
    if leads:
        given["leads"] = leads_of.rows(leads)
        changes.append("leads")
    name = "_".join(["save_turn", *(["with", *changes] if changes else [])])
    await run.statements[name].execute(tx, {"named": list(named), **given}, commits=commits)


async def conversation_of_address(tx: AsyncConnection, email: str) -> UUID:
    """Return the latest conversation of an address; create one without a chat if there is none."""
    found = await run(tx, "latest_conversation", email=email)
    found = found or await run(tx, "make_conversation", email=email)
    conversation_id: UUID = found.scalar_one()
    return conversation_id


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

    @property
    def given(self) -> dict[str, str | None]:
        """What statements look for: the number only without an address."""
        return {"email": self.email, "phone": self.phone if self.email is None else None}


@dataclass(frozen=True, slots=True)
class Trace:
    """The conversations and phone numbers that link a data subject to alerts."""

    conversations: frozenset[UUID]
    phones: frozenset[str]


async def trace(tx: AsyncConnection, subject: Subject) -> Trace:
    rows = await run(tx, "theirs", **subject.given)
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
    talks = {row.id: row.state for row in await run(tx, "lock_theirs", **subject.given)}
    await run(tx, "erase_leads", conversations=[*talks])
    await _take_out(tx, subject, talks)
    if subject.email is not None:
        await lock_address(tx, subject.email)
    await stop(tx, "erased", *talks, email=subject.email)
    if subject.email is not None:
        await _strike_out(tx, subject.email, named_in)
        await run(tx, "erase_mails", email=subject.email)
    about = {"email": subject.email, "conversations": list(map(str, named))}
    await run(tx, "erase_outbox", **about)
    left = (await run(tx, "outbox_about", **about)).scalar_one()
    await run(tx, "erase_submissions", **subject.given)
    gone = await run(tx, "erase_conversations", conversations=[*talks], **subject.given)
    return gone.rowcount, left


async def _take_out(
    tx: AsyncConnection, subject: Subject, talks: Mapping[UUID, Mapping[str, Any]]
) -> None:
    """Take what somebody added out of the leads that began elsewhere.

    Anyone may add to a lead who knows its number: they must not be able to delete it.
    """
    sent = (await run(tx, "sent_in_forms", conversations=[*talks])).scalars()
    sources = {*map(str, talks), *(f"{leads_of.OF_FORM}{each}" for each in sent)}
    gone: dict[str, list[Any]] = {
        "email": [subject.email],
        "phone": [subject.phone],
        "name": [state["facts"].get("name") for state in talks.values() if "facts" in state],
    }

    def rest(known: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in known.items() if value not in gone.get(name, ())}
        also = [rest(each) for each in known.get("also", ()) if each["from"] not in sources]
        return kept | ({"also": also} if "also" in known else {})

    added_to = [state["lead"] for state in talks.values() if state.get("lead")]
    given = {"contacts": subject.contacts, "conversations": [*talks]}
    for row in await run(tx, "added_to", ids=added_to, **given):
        left = {"facts": rest(row.known), "told": row.notified and rest(row.notified)}
        await run(tx, "take_out", id=row.id, conversations=[*talks], **left)
        for act in await run(tx, "acts", lead=row.id, after=0, kind="edit", limit=None):
            data = act.data | {name: rest(act.data[name]) for name in ("before", "after")}
            await run(tx, "strike_act", id=act.id, text=act.text, data=data)
    await run(tx, "drop_contacts", contacts=subject.contacts)


async def _strike_out(
    tx: AsyncConnection, email: str, named_in: Callable[[str], Collection[str]]
) -> None:
    """Erase the mentions of an address, not the people who made them."""
    ids = (await run(tx, "lock_mentions", email=email, phone=None)).scalars()
    for kind in ("conversation", "message", "lead", "act"):
        for row in await run(tx, f"mentions_{kind}", conversations=ids, email=email):
            texts = row._asdict()
            if (left := without(texts, [email], named_in)) != texts:
                await run(tx, f"strike_{kind}", **left)
    await run(tx, "drop_mentions", email=email, conversations=ids)


HELD = ("conversations", "messages", "followups", "leads", "lead_acts", "submissions", "mails")


async def held(
    tx: AsyncConnection, subject: Subject, kind: str, offset: int, limit: int
) -> Sequence[Row]:
    """Read a page of a data subject's records of one kind (see HELD)."""
    return await sql.rows(tx, f"held_{kind}", **subject.given, offset=offset, limit=limit)
