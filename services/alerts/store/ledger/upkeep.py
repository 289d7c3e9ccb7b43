"""Changes rows that no worker has claimed: requeues, ends and purges them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import inbox, outbox
from services.alerts import topology
from services.alerts.messages import CASE_EVENTS, STAFF_MAIL
from services.alerts.rules.delivery import Reason, State
from services.alerts.store.ledger.queries import BARE, Cursor
from services.alerts.store.sql import sql, statements
from services.alerts.store.tables import KEPT, OPEN, delivery, epoch

SQL: Final = statements(__file__, kept=KEPT)

Which = sa.ColumnElement[bool]
"""A condition on rows."""


# A mail whose terminator may be out is never requeued or ended here (`ending.mark_in_doubt`).
_MAY_BE_SENT: Final = (
    sa.text(OPEN),
    ~((delivery.c.state == State.SENDING) & delivery.c.once_address.is_not(None)),
)


# Literal, as an index has the first; by the other index a backlog is not sorted for few rows.
CRITICAL: Final = sa.text("state = 'pending' AND severity = 'critical'")
OTHERS: Final = sa.text("NOT (state = 'pending' AND severity = 'critical')")


async def waiting(tx: AsyncConnection, target: str, batch: int) -> list[Any]:
    """Lock some rows of a target that wait for a retry: critical ones, then the earliest due."""
    column = delivery.c
    rows: list[Any] = []
    for which in (CRITICAL, OTHERS):
        rows += await tx.execute(
            sa.select(column.alert_id, column.target)
            .where(
                sa.text(OPEN),
                which,
                column.state == State.PENDING,
                column.target == target,
                column.due_at > sa.func.now(),
            )
            .order_by(column.due_at)
            .limit(batch - len(rows))
            .with_for_update(skip_locked=True)
        )
    return rows


async def overdue(
    tx: AsyncConnection, target: str, seconds: float, reached: datetime | None, batch: int,
    which: sa.TextClause,
) -> list[Any]:  # fmt: skip
    """Lock some open rows of a target that are overdue and whose message is lost.

    A queue delivers in order, and critical ones before: when another row is claimed, the message of
    one that fell due `seconds` earlier is lost. A row of a dead worker is requeued once,
    after its lease is over.

    :param seconds: since the row was due, and since its lease was over, if it had one
    :param reached: when the last claimed row had fallen due; None: the queues are empty
    """
    column = delivery.c
    before = sa.func.now() - timedelta(seconds=seconds)
    statement = sa.select(column.alert_id, column.target).where(
        *_MAY_BE_SENT,
        which,
        column.target == target,
        column.due_at < before,
        sa.or_(column.lease_until.is_(None), column.lease_until < before),
    )
    if reached is not None:
        statement = statement.where(
            column.due_at <= reached,
            sa.or_(
                column.due_at < reached - timedelta(seconds=seconds),
                column.due_at <= column.lease_until,
            ),
        )
    return list(await tx.execute(statement.limit(batch).with_for_update(skip_locked=True)))


async def open_after(
    tx: AsyncConnection, targets: Sequence[str], after: Cursor | None, batch: int,
    which: sa.TextClause,
) -> list[Any]:  # fmt: skip
    """Lock the next open rows, whether they are due or not.

    Waits for locked rows: to skip a row whose outcome is being recorded would leave it
    without a message. If that deadlocks with others, which lock by id, PostgreSQL aborts one
    transaction, which is then repeated.
    """
    column = delivery.c
    order = (column.created_at, column.alert_id, column.target)
    statement = (
        sa.select(*order)
        .where(*_MAY_BE_SENT, which, column.target.in_(targets))
        .order_by(*order)
        .limit(batch)
        .with_for_update()
    )
    if after is not None:
        statement = statement.where(sa.tuple_(*order) > sa.tuple_(*after))
    return list(await tx.execute(statement))


async def requeue(
    tx: AsyncConnection, rows: Sequence[Any], *, later: float = 0.0, **changes: Any
) -> None:
    """Publish the work of these locked rows again, through the outbox, in the next generation.

    A higher generation makes every older message a duplicate, which is acknowledged unsent. The
    rows are due when their messages leave the outbox, so none counts as lost before that.

    :param later: seconds for which the messages stay in the outbox, so that others can pass
    :param changes: further columns
    """
    if not rows:
        return
    column = delivery.c
    again = await tx.execute(
        sa.update(delivery)
        .where(_among(rows))
        .values(
            generation=column.generation + 1,
            due_at=sa.func.now() + timedelta(seconds=later),
            **changes,
        )
        .returning(
            column.alert_id, column.target, column.generation, column.request_id, column.severity
        )
    )
    await outbox.add_all(
        tx, [topology.work(row, row.target, row.generation) for row in again], later=later
    )


def _replayable(target: str, since: datetime, until: datetime, event_type: str | None) -> Which:
    """Match what was delivered in this time: no mail to others, and no message about a case."""
    column = delivery.c
    which: list[Any] = [
        sa.text("state = 'delivered'"),  # literal, as the index has it
        column.target == target,
        column.finished_at >= since,
        column.finished_at < until,
        column.payload.is_not(None),
        column.once_address.is_(None),
        column.event_type.not_in([*CASE_EVENTS, STAFF_MAIL]),
    ]
    return sa.and_(*which, *([column.event_type == event_type] if event_type else []))


async def replayable(tx: AsyncConnection, *, limit: int, **which: Any) -> int:
    """Count what a replay would send again, up to a limit."""
    rows = sa.select(sa.literal(1)).where(_replayable(**which)).limit(limit).subquery()
    return int((await tx.execute(sa.select(sa.func.count()).select_from(rows))).scalar_one())


async def to_replay(tx: AsyncConnection, *, limit: int, **which: Any) -> list[Any]:
    """Lock some of these rows, the first to be delivered first."""
    column = delivery.c
    asked = sa.select(column.alert_id, column.target).where(_replayable(**which))
    asked = asked.order_by(column.finished_at).limit(limit)
    return list(await tx.execute(asked.with_for_update(skip_locked=True)))


async def outbox_keys(tx: AsyncConnection) -> set[str]:
    """Return the routing keys of the messages in the outbox."""
    return set((await tx.execute(sql("SELECT DISTINCT routing_key FROM outbox"))).scalars())


RESET: Final[Mapping[str, Any]] = {
    "state": State.PENDING,
    "attempts": 0,
    "reason": None,
    "finished_at": None,
    "requeued_at": sa.func.now(),
}
"""What a manual retry changes: all attempts and all its time again.

`attempt`, the fencing number, continues.
"""


async def payload_of(tx: AsyncConnection, row: Any) -> dict[str, Any]:
    return dict((await tx.execute(sa.select(delivery.c.payload).where(_among([row])))).scalar_one())


async def continue_numbering(tx: AsyncConnection, row: Any, targets: Sequence[str]) -> None:
    """Continue an alert's attempt numbers in its new rows: a permit belongs to one number."""
    given = {"alert_id": row.alert_id, "attempt": row.attempt, "targets": list(targets)}
    await tx.execute(SQL["continue_numbering"], given)


def too_old(target: str, seconds: float) -> Which:
    """Match rows of a target that no worker has claimed and that are older than this."""
    column = delivery.c
    before = sa.func.now() - timedelta(seconds=seconds)
    return sa.and_(
        column.target == target,
        sa.or_(column.lease_until.is_(None), column.lease_until < sa.func.now()),
        column.created_at < before,  # for the index
        sa.func.coalesce(column.requeued_at, column.created_at) < before,
    )


def of_no_target(targets: Sequence[str], seconds: float) -> Which:
    """Match rows of none of these targets that have been due for this long."""
    column = delivery.c
    before = sa.func.now() - timedelta(seconds=seconds)
    return sa.and_(
        column.target.not_in(targets),
        column.due_at < before,
        sa.or_(column.lease_until.is_(None), column.lease_until < before),
    )


async def to_end(tx: AsyncConnection, which: Which, batch: int) -> list[Any]:
    """Lock some open rows, without their payloads."""
    statement = sa.select(*BARE).where(*_MAY_BE_SENT, which).order_by(delivery.c.created_at)
    return list(await tx.execute(statement.limit(batch).with_for_update(skip_locked=True)))


async def abandoned(tx: AsyncConnection) -> list[tuple[UUID, str]]:
    """Return mails whose worker died after it may have written the terminator."""
    return [(row.alert_id, row.target) for row in await tx.execute(SQL["abandoned"])]


async def discard_recalled(tx: AsyncConnection) -> None:
    """End the steps that were recalled in flight and whose worker died: none takes them over."""
    await tx.execute(SQL["discard_recalled"])


async def epoch_of(tx: AsyncConnection) -> UUID | None:
    found: UUID | None = await tx.scalar(sa.select(epoch.c.id))
    return found


async def begin_epoch(tx: AsyncConnection, new: UUID) -> None:
    await tx.execute(sa.delete(epoch))
    await tx.execute(sa.insert(epoch).values(id=new))


async def end(
    tx: AsyncConnection,
    rows: Sequence[Any],
    state: State,
    reason: Reason,
    error: str | None,
    operator: str | None = None,
    *,
    keep_error: bool = False,
) -> None:
    """End these locked rows without an attempt.

    :param keep_error: a row that has an error already keeps it
    """
    await tx.execute(
        sa.update(delivery)
        .where(_among(rows))
        .values(
            state=state,
            reason=reason,
            error=sa.func.coalesce(delivery.c.error, error) if keep_error else error,
            lease_until=None,
            recalled=False,
            finished_at=sa.func.now(),
            operator=operator,
        )
    )


def _among(rows: Sequence[Any]) -> sa.ColumnElement[bool]:
    # Not a list of pairs: a sequential scan would compare each pair with each row.
    ids = sa.literal([row.alert_id for row in rows], ARRAY(sa.Uuid))
    targets = sa.literal([row.target for row in rows], ARRAY(sa.Text))
    given = sa.func.unnest(ids, targets).table_valued("alert_id", "target")
    return sa.tuple_(delivery.c.alert_id, delivery.c.target).in_(sa.select(given.render_derived()))


# Without its row, a late duplicate of an accepted mail would count as new, and be sent again. So
# the rows of such mails stay as long as a duplicate may be on its way.
_ONCE_KEPT: Final = inbox.KEEP.total_seconds()


def _purge(state: State) -> sa.TextualSelect:
    return sql(f"""
        WITH old AS (
            SELECT alert_id, target FROM delivery
            WHERE state = '{state}' AND finished_at < now() - make_interval(secs => :seconds)
                AND finished_at >= :begin
                AND (once_address IS NULL
                    OR finished_at < now() - make_interval(secs => {_ONCE_KEPT}))
            ORDER BY finished_at LIMIT :batch FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM delivery USING old
            WHERE delivery.alert_id = old.alert_id AND delivery.target = old.target
            RETURNING delivery.alert_id, delivery.target, finished_at
        ), escalations AS (
            DELETE FROM escalation USING gone
            WHERE (escalation.alert_id, escalation.target) = (gone.alert_id, gone.target)
        ), totalled AS (
            UPDATE ledger_total SET {state} = ledger_total.{state} + purged.rows,
                purged_until = greatest(purged_until, purged.last)
            FROM (SELECT target, count(*) AS rows, max(finished_at) AS last
                FROM gone GROUP BY target) AS purged
            WHERE ledger_total.target = purged.target
        )
        SELECT count(*) AS done, max(finished_at) AS last FROM gone
    """)


_PURGES: Final = {state: _purge(state) for state in (State.DELIVERED, State.DISCARDED)}
BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Batch:
    done: int
    last: datetime
    """Where the next batch begins, so that no batch scans the dead rows of those before it."""


async def purge(
    tx: AsyncConnection, *, state: State, seconds: float, after: datetime, batch: int
) -> Batch:
    """Delete some rows that ended in this state this long ago, oldest first; totals count them."""
    parameters = {"seconds": seconds, "batch": batch, "begin": after}
    row = (await tx.execute(_PURGES[state], parameters)).one()
    return Batch(int(row.done), row.last or after)


async def forget(tx: AsyncConnection, *, seconds: float, after: datetime, batch: int) -> Batch:
    """Empty some rows that ended this long ago and are kept: failed, in doubt or discarded."""
    parameters = {"seconds": seconds, "batch": batch, "begin": after}
    row = (await tx.execute(SQL["forget"], parameters)).one()
    return Batch(int(row.done), row.last or after)
