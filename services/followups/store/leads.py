"""Leads and other requests, found by conversation or contact."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.domain.scopes import KEY, PERSON
from services.followups.store import sql
from services.followups.store.sql import run

OF_FORM = "form:"
"""So begins the source of a wish that came with a form in a conversation that has a lead."""


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
    :returns: the lead, with `takes`: how it takes what is said (see queries.sql)
    """
    here = {"conversation": conversation_id, "since": since}
    asked = {"topic": topic, "known": known_id, "contacts": list(contacts)}
    found = await sql.row(tx, "find", **here, **asked)
    while found is not None and found["takes"] == 0:
        if (follows := await sql.row(tx, "follower", **here, id=str(found["id"]))) is None:
            break
        found = follows
    return None if found is None else dict(found)


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


def rows(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Return the value of `leads`."""
    return [
        change.row._asdict()
        | {"contacts": change.contacts, "dropped": change.dropped, "is_heard": change.is_heard}
        for change in changes
    ]


async def save(tx: AsyncConnection, changes: Sequence[Change]) -> None:
    await run(tx, "save_leads", leads=rows(changes))


def person(by: str | None) -> str | None:
    """Return the name in `state_by`; None for a key, or a role for want of a name."""
    by = by or ""
    is_named = not by.startswith(KEY) and by not in {"", "chat", "staff", "service", "admin"}
    return re.sub(rf"^{PERSON}\S+ ", "", by) if is_named else None
