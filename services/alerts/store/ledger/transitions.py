"""The transitions of a delivery (docs/protocols.md): each moves a row by compare-and-set.

The two transitions of every alert, claim and record, move many rows in one statement, each row as
if alone. They first lock the rows in key order and check them again once locked, so that two
batches wait for each other but never deadlock.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.rules import delivery as rules

run = Queries(__file__, unauthorized=rules.Reason.UNAUTHORIZED, gone=rules.Reason.GONE)

_COPIED: Final = (
    "generation", "attempt", "attempts", "age", "event_type", "severity", "payload", "accepted_at",
    "request_id", "due_at", "resolved", "singled_out",
)  # fmt: skip


async def claim(
    tx: AsyncConnection,
    target: str,
    asked: Sequence[tuple[UUID, int]],
    *,
    lease: float,
    retries: int,
    take_over: bool = False,
) -> list[rules.Claimed | None]:
    """Claim due rows and count the attempts; at-most-once rows are for `claim_once`.

    :param asked: alert ids with the generations of their messages
    :param lease: seconds
    :param take_over: also claim rows whose worker died
    :returns: in the order asked; None where the row cannot be claimed. Of several messages of one
        alert at most one gets it
    """
    found = await run(
        tx,
        "claim",
        target=target,
        alert_ids=[alert_id for alert_id, _ in asked],
        generations=[generation for _, generation in asked],
        lease=lease,
        retries=retries,
        take_over=take_over,
    )
    claimed: list[rules.Claimed | None] = [None] * len(asked)
    for row in found:
        claimed[row.position] = _claimed(row.alert_id, target, row)
    return claimed


async def claim_once(
    tx: AsyncConnection,
    alert_id: UUID,
    target: str,
    generation: int,
    *,
    lease: float,
    retries: int,
    asked_at: float = 0.0,
) -> tuple[rules.Claimed | None, bool]:
    """Claim one at-most-once row.

    :param lease: seconds
    :param asked_at: `boottime` before this call: the window cannot end earlier than counted from it
    :returns: the row, and whether it was taken over from a dead worker, whose permit is to be
        returned
    """
    key = {"alert_id": alert_id, "target": target, "generation": generation}
    row = (await run(tx, "claim_once", **key, lease=lease, retries=retries)).one_or_none()
    if row is None:
        return None, False
    job = _claimed(alert_id, target, row)
    if job.once is not None and row.window_left is not None:
        job = replace(job, once=replace(job.once, window_ends=asked_at + row.window_left))
    return job, row.taken_over


def _claimed(alert_id: UUID, target: str, row: Any) -> rules.Claimed:
    own = {name: getattr(row, name) for name in _COPIED}
    return rules.Claimed(alert_id=alert_id, target=target, once=once_of(row), **own)


def once_of(row: Any) -> rules.Once | None:
    if row.once_address is None:
        return None
    return rules.Once(row.once_address, row.once_purpose, row.once_reference)


async def see(tx: AsyncConnection, alert_id: UUID, target: str) -> rules.RowStatus | None:
    row = (await run(tx, "see", alert_id=alert_id, target=target)).one_or_none()
    return row and rules.RowStatus(rules.State(row.state), *row[1:])


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt and what it does to its row."""

    job: rules.Claimed
    outcome: rules.Outcome
    transition: rules.Transition
    seconds: float
    want: int | None = None
    """The place's value when the case's message was written."""


async def record(tx: AsyncConnection, attempts: Sequence[Attempt]) -> list[rules.State | None]:
    """Write the attempts down and move the rows that are still ours.

    :returns: each row's state now, in the order given; a row that was recalled in flight is not
        tried again. None where another worker has taken over: only the history of attempts has
        changed
    """
    document = json.dumps([_document(position, one) for position, one in enumerate(attempts)])
    now: list[rules.State | None] = [None] * len(attempts)
    for row in await run(tx, "record", results=document):
        now[row.position] = rules.State(row.state)
    return now


def _document(position: int, attempt: Attempt) -> dict[str, Any]:
    job, outcome, transition = attempt.job, attempt.outcome, attempt.transition
    return {
        "position": position,
        "alert_id": str(job.alert_id),
        "target": job.target,
        "attempt": job.attempt,
        "outcome": outcome.kind,
        "attempt_reason": outcome.reason,
        "status": outcome.status,
        "seconds": attempt.seconds,
        "excerpt": outcome.excerpt,
        "error": error_text(outcome),
        "state": transition.state,
        "reason": transition.reason,
        "refund": int(transition.refund),
        "delay": transition.delay,
    }


def error_text(outcome: rules.Outcome) -> str:
    parts = (outcome.reason, outcome.status and str(outcome.status), outcome.excerpt)
    return " ".join(part for part in parts if part)


async def move(
    tx: AsyncConnection,
    job: rules.Claimed,
    before: rules.State,
    after: rules.State,
    *,
    reason: rules.Reason | None = None,
    seconds: float = 0.0,
    refund: bool = False,
) -> bool:
    """Move a row that was not sent from `before` to `after`, if it is still ours.

    :param seconds: of the lease when `after` is sending; until the row is due when it is pending
    :param refund: take back the attempt that the claim counted
    :returns: False when another worker has taken over; nothing has changed
    """
    given = {"before": before, "state": after, "reason": reason, "seconds": seconds}
    own = {"alert_id": job.alert_id, "target": job.target, "attempt": job.attempt}
    return bool(await run(tx, "move", **own, **given, refund=int(refund)))


@dataclass(frozen=True, slots=True)
class Ended:
    """What notifications need of a row that has ended."""

    alert_id: UUID
    target: str
    attempt: int
    event_type: str
    error: str | None
    once: rules.Once | None


def ended(row: Any) -> Ended:
    return Ended(row.alert_id, row.target, row.attempt, row.event_type, row.error, once_of(row))
