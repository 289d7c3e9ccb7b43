"""The changes of a case (docs/protocols.md, D), each under the case's row lock.

Locks are taken in this order everywhere: case, then deliveries by key, then places. The claim and
the record of a delivery lock no case.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.rules.case import Answer, Ask, Cancelled, Change, Moved, State, step_id
from services.alerts.store.tables import alert_case, case_answer, case_place, case_step, names

run = Queries(__file__, columns=names(alert_case), answer=names(case_answer))

CASES: Final = "cases"
"""The pseudo-target of escalations about cases."""

DUE_BATCH: Final = 50


class Opening(NamedTuple):
    """A case to open at intake."""

    alert_id: UUID
    chain: Sequence[Ask]
    hours: str
    next_at: datetime
    asks: Sequence[str]  # of the alert's targets
    case_id: UUID  # its own, or that of an open case of the same key, which gets one more place
    rises: bool  # it is more severe than that case
    silence: int | None = None

    def document(self) -> dict[str, Any]:
        return self._asdict() | {"chain": [asdict(ask) for ask in self.chain]}


async def now(tx: AsyncConnection) -> datetime:
    """Return the transaction's time, from which every wait counts."""
    found: datetime = (await run(tx, "now")).scalar_one()
    return found


async def clock(tx: AsyncConnection) -> datetime:
    """Return a time that orders the changes of a locked case: a transaction's may be older."""
    found: datetime = (await run(tx, "clock")).scalar_one()
    return found


async def open_cases(tx: AsyncConnection, openings: Iterable[Opening]) -> None:
    """Give its case to each of these alerts whose rows this transaction has inserted."""
    await run(tx, "open", rows=json.dumps([each.document() for each in openings], default=str))


@dataclass(frozen=True, slots=True)
class Ticked:
    """A case that the timer has changed, and the step to send."""

    case: Any  # before it, locked
    moved: Moved
    alert_id: UUID | None = None  # of the step
    person: str | None = None
    number: int = 0

    @classmethod
    def of(cls, row: Any, moved: Moved, person: str | None) -> Self:
        """Return what hands out a message to this person.

        The numbers of those to an owner are behind those of the chain: an answer that begins it
        anew ends its generation.
        """
        told = max(row.told, int(row.reminded)) if row.state == State.ANSWERED else 0
        number = row.step + told
        return cls(row, moved, step_id(row.alert_id, row.generation, number), person, number)


async def tick(tx: AsyncConnection, ticked: Sequence[Ticked]) -> None:
    """Record the steps and reminders to send, or end the cases; the caller holds the locks."""
    rows = [
        {
            "case_id": each.case.alert_id,
            "generation": each.case.generation,
            "number": each.number,
            "alert_id": each.alert_id,
            "target": each.moved.handed_out and each.moved.handed_out.to,
            "person": each.person,
            "state": each.moved.state,
            "step": each.moved.step,
            "next_at": each.moved.next_at,
            "reminded": each.moved.reminded,
            "chain": each.moved.chain and [asdict(ask) for ask in each.moved.chain],
        }
        for each in ticked
    ]
    await run(tx, "tick", rows=json.dumps(rows, default=str))


async def lock(tx: AsyncConnection, case_id: UUID) -> Any | None:
    """Lock a case; None if it does not exist."""
    return (await run(tx, "lock", case_id=case_id)).one_or_none()


_SAID: Final = ("person", "name", "via", "verb", "reason", "until", "key")


async def record(tx: AsyncConnection, row: Any, answer: Answer, result: dict[str, Any]) -> None:
    """Record an answer and the response to its request.

    :param row: the case before it, locked
    """
    said = {name: getattr(answer, name) for name in _SAID}
    said |= {"case_id": row.alert_id, "generation": row.generation, "result": result}
    await tx.execute(sa.insert(case_answer).values(said))


_EVERY: Final = sa.true()
# The places whose message can be changed.
_CHANGEABLE: Final = case_place.c.receipt.is_not(None)


async def change(
    tx: AsyncConnection, row: Any, what: Change, done_by: datetime | None = None
) -> Any:
    """Apply an answer to a locked case, recall its chain, and queue updates of its places.

    :param done_by: when to remind its owner that it has no outcome
    :returns: the changed case
    """
    values: dict[str, Any] = {"state": what.state, "version": alert_case.c.version + 1}
    if what.restart is not None:
        values |= {
            "generation": alert_case.c.generation + 1,
            "step": 0,
            "next_at": what.restart,
            "reminded": False,
            "told": 0,
            "laters": alert_case.c.laters + int(row.state == State.OPEN),
            "ended_at": None,
        }
    if row.state == State.ANSWERED == what.state:
        values |= {"outcome": what.outcome, "next_at": what.remind}
        values |= {"reminded": False, "wished": True} if what.remind else {}
    else:
        ended = sa.func.now() if what.state is State.ANSWERED else None
        values |= {
            "owner": what.owner,
            "owner_name": what.name,
            "outcome": what.outcome,
            "late": what.late,
            "answered_at": ended,
            "wished": False,
        }
        if what.state is State.ANSWERED:
            values |= {"next_at": done_by, "ended_at": ended}
    await run(tx, "recall", case_id=row.alert_id)
    return await _become(tx, row, values, _EVERY if what.tell else _CHANGEABLE)


async def cancel(
    tx: AsyncConnection, row: Any, reason: Cancelled, told: sa.ColumnElement[bool] = _EVERY
) -> Any:
    """Cancel a locked case that is open or unanswered; otherwise like `change`."""
    await run(tx, "recall", case_id=row.alert_id)
    values = {
        "state": State.CANCELLED,
        "reason": reason,
        "next_at": None,
        "ended_at": sa.func.now(),
        "version": alert_case.c.version + 1,
    }
    return await _become(tx, row, values, told)


async def _become(
    tx: AsyncConnection, row: Any, values: dict[str, Any], told: sa.ColumnElement[bool]
) -> Any:
    """:param told: the places to update"""
    changed = await tx.execute(
        sa.update(alert_case)
        .where(alert_case.c.alert_id == row.alert_id)
        .values(values | {"failures": 0})
        .returning(alert_case, sa.cast(alert_case.c.subjects, sa.ARRAY(sa.Text)).label("named"))
    )
    if row.state == State.UNANSWERED or row.failures:  # digests no longer list it
        await run(tx, "not_listed", case_id=row.alert_id)
    await _tell(tx, row.alert_id, told)
    return changed.one()


async def tell_erased(tx: AsyncConnection, case_id: UUID) -> None:
    """Order an update of each message of a locked case that can be changed or is in flight."""
    await _tell(tx, case_id, _CHANGEABLE | case_place.c.shown.is_(None))


async def _tell(tx: AsyncConnection, case_id: UUID, which: sa.ColumnElement[bool]) -> None:
    await tx.execute(
        sa.update(case_place)
        .where(case_place.c.case_id == case_id, which)
        .values(want=case_place.c.want + 1, wanted_at=sa.func.now())
    )


async def resolve(tx: AsyncConnection, row: Any) -> None:
    """Cancel a locked case; an answered one stays answered, and gets an outcome.

    An alert's own message that cannot be changed is not followed by an update: the alert that says
    so comes itself.
    """
    steps = sa.select(case_step.c.alert_id).where(case_step.c.case_id == row.alert_id)
    changed = _CHANGEABLE | case_place.c.shown.is_(None)
    if row.state in {State.OPEN, State.UNANSWERED}:
        await cancel(tx, row, Cancelled.RESOLVED, changed | case_place.c.alert_id.in_(steps))
    elif row.state == State.ANSWERED and row.outcome is None:
        await run(tx, "recall", case_id=row.alert_id)
        version = alert_case.c.version + 1
        values = {"outcome": Cancelled.RESOLVED, "next_at": None, "version": version}
        asked = steps.where(case_step.c.person == row.owner)
        await _become(tx, row, values, changed | case_place.c.alert_id.in_(asked))


async def may_be_pending(tx: AsyncConnection, alert_id: UUID) -> bool:
    """Lock the case of a delivery that is to become pending, before locking the delivery.

    Otherwise a concurrent recall would miss the new or changed row, and a change of the case would
    miss a new place.

    :returns: False for a step whose chain is over, which must not change
    """
    found = (await run(tx, "lock_of", alert_id=alert_id)).one_or_none()
    return found is None or bool(found.runs)


async def unanswered(tx: AsyncConnection, limit: int) -> tuple[int, list[Any]]:
    """Count the cases that nobody answers, or that the timer cannot move; return the oldest."""
    count = (await run(tx, "count_unanswered")).scalar_one()
    return count, await run(tx, "unanswered", batch=limit)
