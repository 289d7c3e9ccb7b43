"""The steps of sequences: enrol, claim, stop, record outcomes."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid4, uuid5

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from libs.domain.events import occurred
from services.followups.rules.sequence import REPLACES, RESCHEDULE_AFTER
from services.followups.store import sql
from services.followups.store.sql import run
from services.followups.store.tables import Row

EnrolledBy = Literal["chat", "api", "form"]


async def lock_address(tx: AsyncConnection, email: str) -> None:
    """Serialise the transactions that enrol, retime or stop several steps of an address.

    So a stop cannot miss a concurrent enrolment, and no two transactions lock the same rows in
    different orders. The claim and the relay never wait for this lock. Read under the lock in a
    later statement: the snapshot must be newer than the lock.
    """
    await run(tx, "lock_address", email=email)


class Enrolment(NamedTuple):
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
    """Insert the steps of a sequence, or return the existing ones.

    A conversation goes through a sequence once, and an address is in one sequence at a time. A
    person whose follow-ups have ended is not enrolled. The caller has the address lock.
    """
    found = await sql.rows(
        tx, "enrol", conversation=conversation_id, email=email, sequence=sequence, by=by,
        due=list(due), request_id=request_id,
    )  # fmt: skip
    return Enrolment(found, is_new=any(row["is_new"] for row in found))


async def retime(
    tx: AsyncConnection, rows: Sequence[Row], due: Iterable[datetime], by: EnrolledBy
) -> None:
    """Reschedule steps that are still scheduled.

    A step without a new time, because it is no longer configured, keeps its time.
    """
    timed = list(zip((row["id"] for row in rows), due, strict=False))
    await run(tx, "retime", ids=[each for each, _ in timed], due=[at for _, at in timed], by=by)


async def stop(
    tx: AsyncConnection,
    reason: str,
    *conversations: UUID,
    email: str | None = None,
    both: bool = False,
    since: Row | None = None,
) -> list[UUID]:
    """Cancel scheduled steps, and handed-over ones whose message is still in the outbox.

    They are those of the conversations and those to the address, which is locked.

    :param both: of the conversations only what goes to the address
    :param since: only this step and the later ones of its sequence
    """
    if email:
        await lock_address(tx, email)
    which: dict[str, Any] = {"conversations": list(conversations), "email": email, "both": both}
    which |= {"sequence": since and since["sequence"], "number": since and since["followup_number"]}
    which["reason"] = reason
    stopped = await run(tx, "cancel", **which)
    # A statement of its own: it must see what a claim has committed while the first one waited.
    stopped += await run(tx, "recall", **which, replaces=list(REPLACES["too_late"]))
    ended = {(row.conversation_id, row.email) for row in stopped}
    await outbox.add_all(
        tx,
        [
            occurred("followup.ended", uuid4(), conversation_id=id_, email=to, reason=reason)
            for id_, to in ended
        ],
    )
    return [row.id for row in stopped]


def event(event_type: str, row: Row, **more: Any) -> outbox.Outgoing:
    """Make an event about a step; the same one has the same id."""
    return occurred(
        event_type, uuid5(row["id"], event_type), followup_id=row["id"],
        conversation_id=row["conversation_id"], number=row["followup_number"], email=row["email"],
        **more,
    )  # fmt: skip


async def claim(tx: AsyncConnection, limit: int) -> tuple[Sequence[Row], int]:
    """Claim due steps: `scheduled` → `handed_over`. The caller adds the outbox rows.

    SKIP LOCKED lets any number of schedulers run concurrently: each skips the steps that another
    has locked, and afterwards those are no longer `scheduled`.

    Steps of a conversation leave in order. A due step with an earlier scheduled one is not claimed
    but postponed until that one's due time. Otherwise such steps would fill every batch and starve
    the rest.

    :returns: the claimed steps, and how many were due
    """
    due = await sql.rows(tx, "claim", limit=limit)
    taken = [row for row in due if row["handed_over_at"] is not None]
    return sorted(taken, key=lambda row: (row["due_at"], row["id"])), len(due)


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
    locked = (await run(tx, "lock_caps", emails=list(emails))).scalars()
    # A separate statement, because its snapshot must be newer than the locks.
    counted = await run(tx, "recent_hand_overs", emails=locked, mine=list(mine))
    recent: dict[str, list[datetime]] = {email: [] for email in locked}
    for each in counted:
        if not each.is_unknown:
            recent[each.email].append(each.left_at)
    return recent, {each.email for each in counted if each.is_unknown}


async def reschedule(
    tx: AsyncConnection, followup_id: UUID, message_id: UUID, not_before: datetime | None = None
) -> bool:
    """Reschedule a step that could not be sent within its window, under a new message id.

    A duplicate of the old message finds a delivery that has ended. A step that was stopped in the
    meantime becomes `cancelled` instead.

    :param not_before: the person pauses until then, or had a mail too recently
    :returns: whether the step was in flight under this message id
    """
    step = {"id": followup_id, "message": message_id, "replaces": list(REPLACES["too_late"])}
    when = {"pause": RESCHEDULE_AFTER, "not_before": not_before}
    return (await run(tx, "reschedule", **step, **when)).rowcount == 1


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
    step = {"id": followup_id, "message": message_id, "replaces": list(REPLACES[outcome])}
    values = {"outcome": outcome, "at": at, "sent": sent}
    values["reason"] = None if sent else reason or outcome
    return (await run(tx, "record_outcome", **step, **values)).rowcount == 1
