"""What becomes of rows that no worker has in hand: handed out again, ended, purged."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import inbox, outbox
from services.alerts import messages, topology
from services.alerts.alert import Reason, State
from services.alerts.store.questions import Cursor
from services.alerts.store.tables import OPEN, delivery, epoch

_ABANDONED = sa.text("""
    SELECT alert_id, target FROM delivery
    WHERE state = 'sending' AND once_address IS NOT NULL AND lease_until < now()
    LIMIT 500
""").columns(alert_id=sa.Uuid, target=sa.Text)


async def waiting(tx: AsyncConnection, target: str, batch: int) -> list[Any]:
    """Lock some rows of a target that wait for their next attempt, the soonest first."""
    column = delivery.c
    return list(
        await tx.execute(
            sa.select(column.alert_id, column.target)
            .where(
                sa.text("state = 'pending'"),
                column.target == target,
                column.due_at > sa.func.now(),
            )
            .order_by(column.due_at)
            .limit(batch)
            .with_for_update(skip_locked=True)
        )
    )


async def overdue(
    tx: AsyncConnection,
    targets: Sequence[str],
    seconds: float | None,
    after: Cursor | None,
    batch: int,
) -> list[Any]:
    """Lock some open rows whose time, or whose worker's, was over so long ago; None for all.

    A mail that may be out is not among them: it is not to be handed out again.
    """
    column = delivery.c
    order = (column.created_at, column.alert_id, column.target)
    statement = (
        sa.select(*order)
        .where(
            sa.text(OPEN),
            column.target.in_(targets),
            ~((column.state == State.SENDING) & column.once_address.is_not(None)),
        )
        .order_by(*order)
        .limit(batch)
        .with_for_update(skip_locked=True)
    )
    if seconds is not None:
        due = sa.func.coalesce(column.lease_until, column.due_at)
        statement = statement.where(due < sa.func.now() - timedelta(seconds=seconds))
    if after is not None:
        statement = statement.where(sa.tuple_(*order) > sa.tuple_(*after))
    return list(await tx.execute(statement))


async def hand_out(tx: AsyncConnection, rows: Sequence[Any], **changes: Any) -> None:
    """Publish these locked rows again, through the outbox and under the next turn.

    With the turn raised every older copy is a twin, and acked as one.
    """
    column = delivery.c
    again = await tx.execute(
        sa.update(delivery)
        .where(_among(rows))
        .values(turn=column.turn + 1, due_at=sa.func.now(), **changes)
        .returning(column.alert_id, column.target, column.turn, column.request_id)
    )
    await outbox.add_all(
        tx,
        [
            (
                topology.ALERTS.name,
                topology.work_name(row.target),
                messages.work(row.alert_id, row.target, row.turn, row.request_id),
            )
            for row in again
        ],
    )


AFRESH: Final[Mapping[str, Any]] = {
    "state": State.PENDING,
    "spent": 0,
    "reason": None,
    "finished_at": None,
}
"""What a retry by hand changes: all its attempts again; `attempt`, the fence, goes on."""


async def too_old(tx: AsyncConnection, target: str, seconds: float, batch: int) -> list[Any]:
    """Lock some rows of a target that nobody is at and that were accepted so long ago."""
    column = delivery.c
    return list(
        await tx.execute(
            sa.select(delivery)
            .where(
                sa.text(OPEN),
                column.state == State.PENDING,
                column.target == target,
                column.accepted_at < sa.func.now() - timedelta(seconds=seconds),
            )
            .order_by(column.created_at)
            .limit(batch)
            .with_for_update(skip_locked=True)
        )
    )


async def abandoned(tx: AsyncConnection) -> list[tuple[UUID, str]]:
    """Return mails whose worker died with the dot perhaps out."""
    return [(row.alert_id, row.target) for row in await tx.execute(_ABANDONED)]


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
    error: str,
    operator: str | None = None,
) -> None:
    """End these locked rows without an attempt."""
    await tx.execute(
        sa.update(delivery)
        .where(_among(rows))
        .values(
            state=state,
            reason=reason,
            error=error,
            lease_until=None,
            finished_at=sa.func.now(),
            operator=operator,
        )
    )


def _among(rows: Sequence[Any]) -> sa.ColumnElement[bool]:
    return sa.tuple_(delivery.c.alert_id, delivery.c.target).in_(
        [(row.alert_id, row.target) for row in rows]
    )


# A row is what tells a late copy of its message that the mail has left: without it the copy would
# be a new one, and be sent. So those rows stay while a copy may still be under way.
_ONCE_KEPT: Final = inbox.KEEP.total_seconds()


def _purge(state: State) -> sa.TextualSelect:
    return (
        sa.text(f"""
        WITH old AS (
            SELECT alert_id, target FROM delivery
            WHERE state = '{state}' AND finished_at < now() - make_interval(secs => :seconds)
                AND (once_address IS NULL
                    OR finished_at < now() - make_interval(secs => {_ONCE_KEPT}))
            LIMIT :batch FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM delivery USING old
            WHERE delivery.alert_id = old.alert_id AND delivery.target = old.target
            RETURNING delivery.target
        ), counted AS (
            UPDATE ledger_total SET {state} = ledger_total.{state} + purged.rows
            FROM (SELECT target, count(*) AS rows FROM gone GROUP BY target) AS purged
            WHERE ledger_total.target = purged.target
        )
        SELECT count(*) AS done FROM gone
    """)
        .bindparams(
            sa.bindparam("seconds", type_=sa.Float), sa.bindparam("batch", type_=sa.Integer)
        )
        .columns(done=sa.BigInteger)
    )


_PURGES: Final = (_purge(State.DELIVERED), _purge(State.DISCARDED))


async def purge(tx: AsyncConnection, seconds: float, batch: int = 500) -> int:
    """Delete some rows that are done for so long, still counting them; 0 when none is left."""
    done = 0
    for statement in _PURGES:
        found = await tx.execute(statement, {"seconds": seconds, "batch": batch})
        done += int(found.scalar_one())
    return done
