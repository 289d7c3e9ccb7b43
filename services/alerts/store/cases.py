"""The changes of a case (docs/protocols.md, D), each under the case's row lock.

Locks are taken in this order everywhere: case, then deliveries by key, then places. The claim and
the record of a delivery lock no case.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.case import Answer, Ask, Cancelled, Change, Moved, State
from services.alerts.store.case_tables import alert_case, case_answer, case_place, case_step
from services.alerts.store.intake import NewRow
from services.alerts.store.sql import sql

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
    silence: int | None = None

    def document(self) -> dict[str, Any]:
        return self._asdict() | {"chain": [asdict(ask) for ask in self.chain]}


_NOW = sql("SELECT now() AS now")
_CLOCK = sql("SELECT clock_timestamp() AS at")
# Only for rows that this transaction has inserted: a redelivered alert opens nothing.
_OPEN = sql("""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS one (
            alert_id uuid, chain jsonb, hours text, next_at timestamptz, asks jsonb,
            silence bigint)
    ), opened AS (
        INSERT INTO alert_case (alert_id, event_type, severity, source, dedup_key, request_id,
            payload, subjects, accepted_at, chain, hours, next_at, silence)
        SELECT DISTINCT ON (alert_id) alert_id, event_type, severity, source, dedup_key, request_id,
            payload, subjects, accepted_at, chain, hours, next_at, silence
        FROM given JOIN delivery USING (alert_id)
        WHERE created_at = now() AND (state = 'pending' OR reason = 'silenced' AND NOT EXISTS (
            SELECT FROM alert_case AS asked
            WHERE asked.state = 'open' AND asked.dedup_key = delivery.dedup_key
                AND (asked.source, asked.event_type) = (delivery.source, delivery.event_type)))
        ORDER BY alert_id
        ON CONFLICT DO NOTHING
        RETURNING alert_id
    ), placed AS (
        INSERT INTO case_place (alert_id, target, case_id)
        SELECT alert_id, target, alert_id
        FROM opened JOIN given USING (alert_id),
            LATERAL jsonb_array_elements_text(asks) AS asked (target)
    ), counted AS (
        UPDATE case_total SET count = count + opened.cases
        FROM (SELECT count(*) AS cases FROM opened) AS opened
        WHERE term = 'opened' AND opened.cases > 0
    )
    SELECT count(*) AS opened FROM opened
""")


async def now(tx: AsyncConnection) -> datetime:
    """Return the transaction's time, from which every wait counts."""
    found: datetime = (await tx.execute(_NOW)).scalar_one()
    return found


async def clock(tx: AsyncConnection) -> datetime:
    """Return a time that orders the changes of a locked case: a transaction's may be older."""
    found: datetime = (await tx.execute(_CLOCK)).scalar_one()
    return found


async def open_cases(tx: AsyncConnection, openings: Sequence[Opening]) -> int:
    """Open a case for each of these alerts whose rows this transaction has inserted."""
    rows = json.dumps([each.document() for each in openings], default=str)
    return int((await tx.execute(_OPEN, {"rows": rows})).scalar_one())


async def due(tx: AsyncConnection) -> list[Any]:
    """Lock some due cases, skipping those that others hold."""
    return list(
        await tx.execute(
            sa.select(alert_case, sa.cast(alert_case.c.subjects, sa.ARRAY(sa.Text)).label("named"))
            .where(alert_case.c.next_at <= sa.func.now())
            .order_by(alert_case.c.next_at)
            .limit(DUE_BATCH)
            .with_for_update(skip_locked=True)
        )
    )


@dataclass(frozen=True, slots=True)
class Ticked:
    """A case that the timer has changed, and the step to send."""

    case: Any  # before it, locked
    moved: Moved
    alert_id: UUID | None = None  # of the step
    person: str | None = None


_TICK = sql("""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS one (
            case_id uuid, generation integer, number integer, alert_id uuid, target text,
            person text, state text, step integer, next_at timestamptz, reminded boolean)
    ), stepped AS (
        INSERT INTO case_step (case_id, generation, number, alert_id, target, person)
        SELECT case_id, generation, number, alert_id, target, person
        FROM given WHERE alert_id IS NOT NULL
    ), placed AS (
        INSERT INTO case_place (alert_id, target, case_id)
        SELECT alert_id, target, case_id FROM given WHERE alert_id IS NOT NULL
    ), moved AS (
        UPDATE alert_case SET state = given.state, step = given.step, next_at = given.next_at,
            version = version + 1, reminded = alert_case.reminded OR given.reminded,
            ended_at = CASE WHEN given.state = 'unanswered' THEN now() ELSE ended_at END
        FROM given WHERE alert_case.alert_id = case_id
        RETURNING alert_case.alert_id, event_type, alert_case.state
    ), listed AS (
        INSERT INTO escalation (alert_id, target, event_type, reason)
        SELECT alert_id, 'cases', event_type, 'unanswered' FROM moved WHERE state = 'unanswered'
    )
    UPDATE case_place SET want = want + 1, wanted_at = now()
    FROM moved WHERE case_id = moved.alert_id AND moved.state = 'unanswered'
""")


async def tick(tx: AsyncConnection, ticked: Sequence[Ticked]) -> None:
    """Record the steps and reminders to send, or end the cases; the caller holds the locks."""
    rows = [
        {
            "case_id": each.case.alert_id,
            "generation": each.case.generation,
            "number": each.case.step,
            "alert_id": each.alert_id,
            "target": each.moved.handed_out and each.moved.handed_out.to,
            "person": each.person,
            "state": each.moved.state,
            "step": each.moved.step,
            "next_at": each.moved.next_at,
            "reminded": each.moved.reminded,
        }
        for each in ticked
    ]
    await tx.execute(_TICK, {"rows": json.dumps(rows, default=str)})


async def limit_statements(tx: AsyncConnection) -> None:
    """Limit each statement to 2 s: Slack waits 3 s for the response to a press."""
    await tx.execute(sql("SET LOCAL statement_timeout = 2000"))


async def lock(tx: AsyncConnection, case_id: UUID) -> Any | None:
    """Lock a case; None if it does not exist."""
    found = await tx.execute(
        sa.select(alert_case).where(alert_case.c.alert_id == case_id).with_for_update()
    )
    return found.one_or_none()


async def lock_forgotten(tx: AsyncConnection, case_id: UUID) -> Any | None:
    """Lock a case whose owner was reminded, if it is still due."""
    found = await tx.execute(
        sa.select(alert_case)
        .where(
            alert_case.c.alert_id == case_id,
            alert_case.c.reminded,
            alert_case.c.next_at <= sa.func.now(),
        )
        .with_for_update()
    )
    return found.one_or_none()


async def answered_before(tx: AsyncConnection, case_id: UUID, key: str) -> Any | None:
    """Return the answer recorded under this idempotency key."""
    found = await tx.execute(
        sa.select(case_answer).where(case_answer.c.case_id == case_id, case_answer.c.key == key)
    )
    return found.one_or_none()


async def laters(tx: AsyncConnection, case_id: UUID) -> list[tuple[datetime, datetime]]:
    """Return begin and planned end of each `later` of this case."""
    found = await tx.execute(
        sa.select(case_answer.c.at, case_answer.c.until).where(
            case_answer.c.case_id == case_id, case_answer.c.verb == "later"
        )
    )
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
            "laters": alert_case.c.laters + int(row.state == State.OPEN),
            "ended_at": None,
        }
    if row.state == State.ANSWERED == what.state:
        values |= {"outcome": what.outcome, "next_at": None}
    else:
        ended = sa.func.now() if what.state is State.ANSWERED else None
        values |= {
            "owner": what.owner,
            "owner_name": what.name,
            "outcome": what.outcome,
            "late": what.late,
            "answered_at": ended,
        }
        if what.state is State.ANSWERED:
            values |= {"next_at": done_by, "ended_at": ended}
    await recall(tx, row.alert_id)
    return await _become(tx, row, values, sa.true() if what.tell else _CHANGEABLE)


async def cancel(tx: AsyncConnection, row: Any, reason: Cancelled) -> Any:
    """Cancel a locked case that is open or unanswered; otherwise like `change`."""
    await recall(tx, row.alert_id)
    values = {
        "state": State.CANCELLED,
        "reason": reason,
        "next_at": None,
        "ended_at": sa.func.now(),
        "version": alert_case.c.version + 1,
    }
    return await _become(tx, row, values, sa.true())


_NOT_LISTED = sql("""
    DELETE FROM escalation WHERE alert_id = :case_id AND target = 'cases' AND digest IS NULL
""")


# The places whose message can be changed.
_CHANGEABLE: Final = case_place.c.receipt.is_not(None)


async def _become(
    tx: AsyncConnection, row: Any, values: dict[str, Any], told: sa.ColumnElement[bool]
) -> Any:
    """:param told: the places to update"""
    changed = await tx.execute(
        sa.update(alert_case)
        .where(alert_case.c.alert_id == row.alert_id)
        .values(values)
        .returning(alert_case)
    )
    if row.state == State.UNANSWERED:  # digests need not list it any more
        await tx.execute(_NOT_LISTED, {"case_id": row.alert_id})
    await _tell(tx, row.alert_id, told)
    return changed.one()


async def tell_erased(tx: AsyncConnection, case_id: UUID) -> None:
    """Have each message of a locked case overwritten that can be changed, or is still in flight."""
    await _tell(tx, case_id, _CHANGEABLE | case_place.c.shown.is_(None))


async def _tell(tx: AsyncConnection, case_id: UUID, which: sa.ColumnElement[bool]) -> None:
    await tx.execute(
        sa.update(case_place)
        .where(case_place.c.case_id == case_id, which)
        .values(want=case_place.c.want + 1, wanted_at=sa.func.now())
    )


# Steps, the reminder, and their fallbacks. Those in flight end with their attempt
# (`transitions.RECORD`).
_RECALL = sql("""
    WITH mine AS MATERIALIZED (
        SELECT delivery.alert_id, delivery.target
        FROM case_step JOIN delivery USING (alert_id)
        WHERE case_id = :case_id AND state IN ('pending', 'sending')
        ORDER BY delivery.alert_id, delivery.target
        FOR NO KEY UPDATE OF delivery
    )
    UPDATE delivery SET
        recalled = state = 'sending',
        reason = CASE WHEN state = 'pending' THEN 'answered' ELSE reason END,
        finished_at = CASE WHEN state = 'pending' THEN now() END,
        state = CASE WHEN state = 'pending' THEN 'discarded' ELSE state END
    FROM mine
    WHERE (delivery.alert_id, delivery.target) = (mine.alert_id, mine.target)
""")


async def recall(tx: AsyncConnection, case_id: UUID) -> None:
    """Discard pending steps, and mark those in flight so that they are not retried."""
    await tx.execute(_RECALL, {"case_id": case_id})


_LOCK_RESOLVED = sql("""
    SELECT alert_case.* FROM alert_case
    WHERE dedup_key IS NOT NULL AND state <> 'cancelled' AND EXISTS (
        SELECT FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS one (
            source text, event_type text, dedup_key text, accepted_at timestamptz)
        WHERE (one.source, one.event_type, one.dedup_key)
                = (alert_case.source, alert_case.event_type, alert_case.dedup_key)
            AND one.accepted_at >= alert_case.accepted_at)
    ORDER BY alert_id FOR UPDATE
""")


async def resolve(tx: AsyncConnection, resolving: Sequence[NewRow]) -> None:
    """Cancel the cases of alerts that these alerts resolve; an answered case stays answered."""
    rows = [
        {
            "source": row.source,
            "event_type": row.event_type,
            "dedup_key": row.dedup_key,
            "accepted_at": row.accepted_at,
        }
        for row in resolving
    ]
    for row in await tx.execute(_LOCK_RESOLVED, {"rows": json.dumps(rows, default=str)}):
        await _resolve(tx, row)


async def resolve_one(tx: AsyncConnection, case_id: UUID) -> None:
    """Resolve a case, if it still exists."""
    row = await lock(tx, case_id)
    if row is not None:
        await _resolve(tx, row)


async def _resolve(tx: AsyncConnection, row: Any) -> None:
    if row.state in {State.OPEN, State.UNANSWERED}:
        await cancel(tx, row, Cancelled.RESOLVED)
    elif row.state == State.ANSWERED and row.outcome is None:
        await recall(tx, row.alert_id)
        version = alert_case.c.version + 1
        values = {"outcome": Cancelled.RESOLVED, "next_at": None, "version": version}
        asked = sa.select(case_step.c.alert_id).where(
            case_step.c.case_id == row.alert_id, case_step.c.person == row.owner
        )
        await _become(tx, row, values, _CHANGEABLE | case_place.c.alert_id.in_(asked))


_BRING_FORWARD = sql("""
    UPDATE alert_case SET next_at = now()
    FROM case_step
    WHERE case_step.alert_id = :alert_id AND case_id = alert_case.alert_id
        AND state = 'open' AND next_at > now()
        AND alert_case.generation = case_step.generation AND step = number + 1
""")


async def bring_forward(tx: AsyncConnection, alert_id: UUID) -> None:
    """Make the next step due now, because the last one sent has finally failed."""
    await tx.execute(_BRING_FORWARD, {"alert_id": alert_id})


_LOCK_OF = sql("""
    SELECT case_step.alert_id IS NULL OR alert_case.generation = case_step.generation
        AND (state IN ('open', 'unanswered') OR next_at IS NOT NULL AND number = step) AS runs
    FROM alert_case LEFT JOIN case_step
        ON case_id = alert_case.alert_id AND case_step.alert_id = :alert_id
    WHERE alert_case.alert_id = coalesce(
        (SELECT case_id FROM case_step WHERE alert_id = :alert_id), :alert_id)
    FOR NO KEY UPDATE OF alert_case
""")


async def may_be_pending(tx: AsyncConnection, alert_id: UUID) -> bool:
    """Lock the case of a delivery that is to become pending, before locking the delivery.

    Otherwise a concurrent recall would miss the new or changed row, and a change of the case would
    miss a new place.

    :returns: False for a step whose chain is over, which must not change
    """
    found = (await tx.execute(_LOCK_OF, {"alert_id": alert_id})).first()
    return found is None or bool(found.runs)


async def unanswered(tx: AsyncConnection, limit: int) -> tuple[int, list[Any]]:
    """Count the unanswered cases, and return the oldest of them."""
    column = alert_case.c
    mine = column.state == State.UNANSWERED
    count = (await tx.execute(sa.select(sa.func.count()).where(mine))).scalar_one()
    oldest = await tx.execute(
        sa.select(column.alert_id, column.event_type, column.opened_at)
        .where(mine)
        .order_by(column.opened_at)
        .limit(limit)
    )
    return int(count), list(oldest)
