"""What staff did with a lead: notes, calls, corrections, who has it and how it stands."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from libs.domain.events import occurred
from services.followups import messages
from services.followups.store import leads, sql
from services.followups.store.tables import Row, lead, lead_act

OPEN = ("new", "taken")


async def add(
    tx: AsyncConnection,
    row: Row,
    values: Mapping[str, Any],
    *,
    kind: str,
    by: str,
    text: str | None = None,
    data: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> None:
    """Change a lead, which the caller has locked, and note who did it."""
    revision = row["revision"] + 1
    changed = sa.update(lead).where(lead.c.id == row["id"])
    now = sa.func.now()
    await tx.execute(changed.values(**values, revision=revision, updated_at=now))
    act = {"lead_id": row["id"], "kind": kind, "by": by, "text": text, "data": data or {}}
    await tx.execute(sa.insert(lead_act).values(**act, revision=revision, at=at or now))
    state = values.get("state", row["state"])
    if state != row["state"] and row["topic"] == messages.LEAD:
        event_type = {"taken": "lead.answered", "new": "lead.released"}.get(state, "lead.closed")
        event = occurred(
            event_type, messages.update_id(row["id"], revision, event_type), lead_id=row["id"],
            conversation_id=row["conversation_id"], state=state, by=by,
        )  # fmt: skip
        await outbox.add_all(tx, [event])


def in_state(
    row: Row, state: str, by: str, at: datetime, *, reason: str | None = None,
    owner: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the columns of a lead that is in this state since then.

    The first act of staff that says whose it is, or that it is over, answers it. Who closes a lead
    need not be who had it.
    """
    changed = {"state": state, "state_reason": reason, "state_by": by, "state_at": at}
    owned = {"owner": owner} if state in OPEN else {}
    is_answer = state != "new" and by != "chat"
    return changed | owned | ({"answered_at": row["answered_at"] or at} if is_answer else {})


async def change_state(
    tx: AsyncConnection, row: Row, state: str, by: str, at: datetime, **given: Any
) -> None:
    """:param given: `reason` and `owner`, as for `in_state`"""
    before = {"before": row["state"], "owner": row["owner"]}
    data = before | {"after": state, "reason": given.get("reason")}
    values = in_state(row, state, by, at, **given)
    if state == row["state"]:  # only the time is new
        await tx.execute(sa.update(lead).where(lead.c.id == row["id"]).values(**values))
    else:
        await add(tx, row, values, kind="state", by=by, at=at, data=data)


async def follow(tx: AsyncConnection, lead_id: UUID, state: str, by: str, at: datetime) -> None:
    """Note that a person took a lead's case, or gave it back, then; a later change stays.

    A new lead also gets the time of a return: the message that it was taken before may still come.
    """
    if (row := await sql.row(tx, "lock_lead", id=lead_id)) is None:
        return
    # A lead that nobody has touched has the time of this service's clock, not of alerts'.
    is_later = row["state_at"] < at or (state == "taken" and row["state_by"] is None)
    theirs = row["state"] == "taken" and leads.person(row["owner"] or row["state_by"]) == by
    if is_later and (row["state"] == "new" or (state == "new" and theirs)):
        owner = by if state == "taken" else None
        await change_state(tx, row, state, by, at, owner=owner)
