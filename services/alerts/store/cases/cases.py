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

from services.alerts.rules.case import Answer, Ask, Cancelled, Change, Moved, State, step_id
from services.alerts.store.ledger.intake import NewRow
from services.alerts.store.sql import sql, statements
from services.alerts.store.tables import alert_case, case_answer, case_place, case_step

SQL: Final = statements(__file__)

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
    found: datetime = (await tx.execute(SQL["now"])).scalar_one()
    return found


async def clock(tx: AsyncConnection) -> datetime:
    """Return a time that orders the changes of a locked case: a transaction's may be older."""
    found: datetime = (await tx.execute(SQL["clock"])).scalar_one()
    return found


async def open_cases(tx: AsyncConnection, openings: Iterable[Opening]) -> int:
    """Give its case to each of these alerts whose rows this transaction has inserted."""
    rows = json.dumps([each.document() for each in openings], default=str)
    return int((await tx.execute(SQL["open"], {"rows": rows})).scalar_one())


async def due_ids(tx: AsyncConnection) -> list[UUID]:
    return list(await tx.scalars(SQL["due_ids"], {"batch": DUE_BATCH}))


async def due(tx: AsyncConnection, case_ids: Sequence[UUID]) -> list[Any]:
    """Lock those of these cases that are still due, skipping locked ones."""
    return list(await tx.execute(SQL["due"], {"alert_ids": list(case_ids)}))


async def failed(tx: AsyncConnection, case_id: UUID, error: str) -> None:
    """Put off a due case that cannot be moved; list it if that is the second time."""
    await tx.execute(SQL["failed"], {"case_id": case_id, "error": error})


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
    await tx.execute(SQL["tick"], {"rows": json.dumps(rows, default=str)})


async def limit_statements(tx: AsyncConnection) -> None:
    """Limit each statement to 2 s: Slack waits 3 s for the response to a press."""
    await tx.execute(sql("SET LOCAL statement_timeout = 2000"))


async def lock(tx: AsyncConnection, case_id: UUID) -> Any | None:
    """Lock a case; None if it does not exist."""
    return (await tx.execute(SQL["lock"], {"case_id": case_id})).one_or_none()


async def lock_forgotten(tx: AsyncConnection, case_id: UUID) -> Any | None:
    """Lock a case whose owner was reminded, if it is still due."""
    return (await tx.execute(SQL["lock_forgotten"], {"case_id": case_id})).one_or_none()


async def answered_before(tx: AsyncConnection, case_id: UUID, key: str) -> Any | None:
    """Return the answer recorded under this idempotency key."""
    given = {"case_id": case_id, "key": key}
    return (await tx.execute(SQL["answered_before"], given)).one_or_none()


async def laters(tx: AsyncConnection, case_id: UUID) -> list[tuple[datetime, datetime]]:
    """Return begin and planned end of each `later` of this case."""
    found = await tx.execute(SQL["laters"], {"case_id": case_id})
    return [(row.at, row.until) for row in found]


async def record(tx: AsyncConnection, row: Any, answer: Answer, result: dict[str, Any]) -> None:
    """Record an answer and the response to its request.

    :param row: the case before it, locked
    """
    await tx.execute(
        sa.insert(case_answer).values(
            case_id=row.alert_id,
            generation=row.generation,
            person=answer.person,
            name=answer.name,
            via=answer.via,
            verb=answer.verb,
            reason=answer.reason,
            until=answer.until,
            key=answer.key,
            result=result,
        )
    )


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
    await recall(tx, row.alert_id)
    return await _become(tx, row, values, _EVERY if what.tell else _CHANGEABLE)


async def cancel(
    tx: AsyncConnection, row: Any, reason: Cancelled, told: sa.ColumnElement[bool] = _EVERY
) -> Any:
    """Cancel a locked case that is open or unanswered; otherwise like `change`."""
    await recall(tx, row.alert_id)
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
        .returning(alert_case)
    )
    if row.state == State.UNANSWERED or row.failures:  # digests no longer list it
        await tx.execute(SQL["not_listed"], {"case_id": row.alert_id})
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


async def recall(tx: AsyncConnection, case_id: UUID) -> None:
    """Discard pending steps, and mark those in flight so that they are not retried."""
    await tx.execute(SQL["recall"], {"case_id": case_id})


async def lock_of_keys(tx: AsyncConnection, rows: Sequence[NewRow]) -> list[Any]:
    """Lock the cases that have the key of one of these alerts, whoever owns them."""
    keys = [row.dedup_key for row in rows]
    return list(await tx.execute(SQL["lock_of_keys"], {"dedup_keys": keys})) if keys else []


async def resolve_one(tx: AsyncConnection, case_id: UUID) -> None:
    """Resolve a case, if it still exists."""
    row = await lock(tx, case_id)
    if row is not None:
        await resolve(tx, row, _EVERY)


async def resolve(
    tx: AsyncConnection, row: Any, told: sa.ColumnElement[bool] | None = None
) -> None:
    """Cancel a locked case; an answered one stays answered, and gets an outcome.

    :param told: the places of a case that had no answer; None: not an alert's own message that
        cannot be changed, as the alert that says so comes itself
    """
    steps = sa.select(case_step.c.alert_id).where(case_step.c.case_id == row.alert_id)
    changed = _CHANGEABLE | case_place.c.shown.is_(None)
    if row.state in {State.OPEN, State.UNANSWERED}:
        if told is None:
            told = changed | case_place.c.alert_id.in_(steps)
        await cancel(tx, row, Cancelled.RESOLVED, told)
    elif row.state == State.ANSWERED and row.outcome is None:
        await recall(tx, row.alert_id)
        version = alert_case.c.version + 1
        values = {"outcome": Cancelled.RESOLVED, "next_at": None, "version": version}
        asked = steps.where(case_step.c.person == row.owner)
        await _become(tx, row, values, changed | case_place.c.alert_id.in_(asked))


async def bring_forward(tx: AsyncConnection, alert_id: UUID) -> None:
    """Make the next step due now, because the last one sent has finally failed."""
    await tx.execute(SQL["bring_forward"], {"alert_id": alert_id})


async def may_be_pending(tx: AsyncConnection, alert_id: UUID) -> bool:
    """Lock the case of a delivery that is to become pending, before locking the delivery.

    Otherwise a concurrent recall would miss the new or changed row, and a change of the case would
    miss a new place.

    :returns: False for a step whose chain is over, which must not change
    """
    found = (await tx.execute(SQL["lock_of"], {"alert_id": alert_id})).first()
    return found is None or bool(found.runs)


async def unanswered(tx: AsyncConnection, limit: int) -> tuple[int, list[Any]]:
    """Count the cases that nobody answers, or that the timer cannot move; return the oldest."""
    count = int((await tx.execute(SQL["count_unanswered"])).scalar_one())
    return count, list(await tx.execute(SQL["unanswered"], {"batch": limit}))
