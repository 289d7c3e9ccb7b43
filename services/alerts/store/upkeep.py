"""What becomes of rows that no worker has in hand: handed out again, ended, purged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import inbox, outbox
from services.alerts import messages, topology
from services.alerts.alert import Reason, State
from services.alerts.store.questions import SLICE, Cursor
from services.alerts.store.tables import KEPT, OPEN, delivery, epoch

_timestamptz = sa.DateTime(timezone=True)

_ABANDONED = sa.text("""
    SELECT alert_id, target FROM delivery
    WHERE state = 'sending' AND once_address IS NOT NULL AND lease_until < now()
    LIMIT 500
""").columns(alert_id=sa.Uuid, target=sa.Text)


_MAY_GO_OUT: Final = (
    sa.text(OPEN),
    ~((delivery.c.state == State.SENDING) & delivery.c.once_address.is_not(None)),
)


async def waiting(tx: AsyncConnection, target: str, batch: int) -> list[Any]:
    """Lock some rows of a target that wait for their next attempt, the soonest first."""
    column = delivery.c
    return list(
        await tx.execute(
            sa.select(column.alert_id, column.target)
            .where(
                sa.text(OPEN),
                column.state == State.PENDING,
                column.target == target,
                column.due_at > sa.func.now(),
            )
            .order_by(column.due_at)
            .limit(batch)
            .with_for_update(skip_locked=True)
        )
    )


async def overdue(
    tx: AsyncConnection, targets: Sequence[str], seconds: float, batch: int
) -> list[Any]:
    """Lock some open rows whose time, or whose worker's, was over so long ago.

    Handed out they are so no more. A mail that may be out is not among them: it is not to be
    handed out again.
    """
    column = delivery.c
    before = sa.func.now() - timedelta(seconds=seconds)
    return list(
        await tx.execute(
            sa.select(column.alert_id, column.target)
            .where(
                *_MAY_GO_OUT,
                column.target.in_(targets),
                column.due_at < before,
                sa.or_(column.lease_until.is_(None), column.lease_until < before),
            )
            .limit(batch)
            .with_for_update(skip_locked=True)
        )
    )


async def open_after(
    tx: AsyncConnection, targets: Sequence[str], after: Cursor | None, batch: int
) -> list[Any]:
    """Lock the next open rows, whether their time has come or not; as `overdue` without mails.

    Waits for what others hold: to pass over a row that is being settled would leave it without a
    copy. Where that makes a circle (others lock by id), PostgreSQL ends one, and that one is done
    again.
    """
    column = delivery.c
    order = (column.created_at, column.alert_id, column.target)
    statement = (
        sa.select(*order)
        .where(*_MAY_GO_OUT, column.target.in_(targets))
        .order_by(*order)
        .limit(batch)
        .with_for_update()
    )
    if after is not None:
        statement = statement.where(sa.tuple_(*order) > sa.tuple_(*after))
    return list(await tx.execute(statement))


async def hand_out(
    tx: AsyncConnection, rows: Sequence[Any], *, later: float = 0.0, **changes: Any
) -> None:
    """Publish these locked rows again, through the outbox and under the next turn.

    With the turn raised every older copy is a twin, and acked as one.

    :param later: seconds in which the outbox lets others pass
    """
    if not rows:
        return
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
        later=later,
    )


async def leaving(tx: AsyncConnection) -> set[str]:
    """Return the routing keys of what lies in the outbox."""
    return set((await tx.execute(sa.text("SELECT DISTINCT routing_key FROM outbox"))).scalars())


AFRESH: Final[Mapping[str, Any]] = {
    "state": State.PENDING,
    "spent": 0,
    "reason": None,
    "finished_at": None,
    "requeued_at": sa.func.now(),
}
"""What a retry by hand changes: all its attempts and all its time again.

`attempt`, the fence, goes on.
"""


_TO_END: Final = (
    delivery.c.alert_id,
    delivery.c.target,
    delivery.c.attempt,
    delivery.c.event_type,
    delivery.c.state,
    delivery.c.error,
    delivery.c.once_address,
    delivery.c.once_purpose,
    delivery.c.once_reference,
)


async def too_old(tx: AsyncConnection, target: str, seconds: float, batch: int) -> list[Any]:
    """Lock some rows of a target that nobody is at and that have been tried for so long."""
    column = delivery.c
    before = sa.func.now() - timedelta(seconds=seconds)
    return list(
        await tx.execute(
            sa.select(*_TO_END)
            .where(
                sa.text(OPEN),
                column.state == State.PENDING,
                column.target == target,
                column.created_at < before,  # of which there is an index
                sa.func.coalesce(column.requeued_at, column.created_at) < before,
            )
            .order_by(column.created_at)
            .limit(batch)
            .with_for_update(skip_locked=True)
        )
    )


async def of_no_target(
    tx: AsyncConnection, targets: Sequence[str], seconds: float, batch: int
) -> list[Any]:
    """Lock some open rows that none of these targets waits for, due for so long."""
    column = delivery.c
    before = sa.func.now() - timedelta(seconds=seconds)
    return list(
        await tx.execute(
            sa.select(*_TO_END)
            .where(
                *_MAY_GO_OUT,
                column.target.not_in(targets),
                column.due_at < before,
                sa.or_(column.lease_until.is_(None), column.lease_until < before),
            )
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
    error: str | sa.ColumnElement[str],
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
    # Not a list of pairs, each of which a sequential scan would compare with each row.
    ids = sa.literal([row.alert_id for row in rows], ARRAY(sa.Uuid))
    targets = sa.literal([row.target for row in rows], ARRAY(sa.Text))
    given = sa.func.unnest(ids, targets).table_valued("alert_id", "target")
    return sa.tuple_(delivery.c.alert_id, delivery.c.target).in_(sa.select(given.render_derived()))


# A row is what tells a late copy of its message that the mail has left: without it the copy would
# be a new one, and be sent. So those rows stay while a copy may still be under way.
_ONCE_KEPT: Final = inbox.KEEP.total_seconds()
_BATCH: Final = (
    sa.bindparam("seconds", type_=sa.Float),
    sa.bindparam("batch", type_=sa.Integer),
    sa.bindparam("after", type_=_timestamptz),
)
# Before anything is looked at: what is counted and what is purged then see each other's work.
_LOCK_COUNT = sa.text("SELECT FROM ledger_count FOR UPDATE")


def _purge(state: State) -> sa.TextualSelect:
    return (
        sa.text(f"""
        WITH old AS (
            SELECT alert_id, target FROM delivery
            WHERE state = '{state}' AND finished_at < now() - make_interval(secs => :seconds)
                AND finished_at >= :after
                AND (once_address IS NULL
                    OR finished_at < now() - make_interval(secs => {_ONCE_KEPT}))
            ORDER BY finished_at LIMIT :batch FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM delivery USING old
            WHERE delivery.alert_id = old.alert_id AND delivery.target = old.target
            RETURNING delivery.alert_id, delivery.target, state, finished_at
        ), told AS (
            DELETE FROM escalation USING gone
            WHERE (escalation.alert_id, escalation.target) = (gone.alert_id, gone.target)
        ), counted AS (
            UPDATE ledger_count SET delivered = delivered - (
                SELECT count(*) FROM gone WHERE gone.state = 'delivered' AND finished_at < until)
        ), totalled AS (
            UPDATE ledger_total SET {state} = ledger_total.{state} + purged.rows
            FROM (SELECT target, count(*) AS rows FROM gone GROUP BY target) AS purged
            WHERE ledger_total.target = purged.target
        )
        SELECT count(*) AS done, max(finished_at) AS last FROM gone
    """)
        .bindparams(*_BATCH)
        .columns(done=sa.BigInteger, last=_timestamptz)
    )


_PURGES: Final = {state: _purge(state) for state in (State.DELIVERED, State.DISCARDED)}
_FORGET = (
    sa.text(f"""
    WITH old AS (
        SELECT alert_id, target FROM delivery
        WHERE {KEPT} AND payload IS NOT NULL AND finished_at >= :after
            AND finished_at < now() - make_interval(secs => :seconds)
        ORDER BY finished_at LIMIT :batch FOR UPDATE SKIP LOCKED
    ), emptied AS (
        UPDATE delivery SET payload = NULL, dedup_key = NULL,
            once_address = CASE WHEN once_address IS NOT NULL THEN 'expired' END,
            error = CASE WHEN reason = 'by_hand' OR error IS NULL THEN error ELSE reason END
        FROM old WHERE delivery.alert_id = old.alert_id AND delivery.target = old.target
        RETURNING delivery.alert_id, delivery.target, finished_at
    ), quiet AS (
        UPDATE attempt SET excerpt = '' FROM emptied
        WHERE (attempt.alert_id, attempt.target) = (emptied.alert_id, emptied.target)
            AND excerpt <> ''
    ), told AS (
        DELETE FROM escalation USING emptied
        WHERE (escalation.alert_id, escalation.target) = (emptied.alert_id, emptied.target)
            AND digest IS NOT NULL
    ), untold AS (
        UPDATE escalation SET error = NULL FROM emptied
        WHERE (escalation.alert_id, escalation.target) = (emptied.alert_id, emptied.target)
            AND digest IS NULL
    )
    SELECT count(*) AS done, max(finished_at) AS last FROM emptied
""")
    .bindparams(*_BATCH)
    .columns(done=sa.BigInteger, last=_timestamptz)
)
BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Batch:
    done: int
    last: datetime
    """Where the next one begins: what is gone before it would be passed over each time."""


async def purge(
    tx: AsyncConnection, *, state: State, seconds: float, after: datetime, batch: int
) -> Batch:
    """Delete some rows that are done for so long, still counting them; the oldest first."""
    await tx.execute(_LOCK_COUNT)
    parameters = {"seconds": seconds, "batch": batch, "after": after}
    row = (await tx.execute(_PURGES[state], parameters)).one()
    return Batch(int(row.done), row.last or after)


async def forget(tx: AsyncConnection, *, seconds: float, after: datetime, batch: int) -> Batch:
    """Forget what some rows said whose delivery ended so long ago, in failure or doubt."""
    parameters = {"seconds": seconds, "batch": batch, "after": after}
    row = (await tx.execute(_FORGET, parameters)).one()
    return Batch(int(row.done), row.last or after)


# No transaction lasts so long: what bears an earlier time is there by now.
_COMMITTED: Final = 120.0
_COUNT = (
    sa.text(f"""
    WITH slice AS MATERIALIZED (
        SELECT least(
            now() - make_interval(secs => {_COMMITTED}),
            (SELECT finished_at FROM delivery
             WHERE state = 'delivered' AND finished_at >= (SELECT until FROM ledger_count)
             ORDER BY finished_at OFFSET :batch LIMIT 1)
        ) AS ends
    )
    UPDATE ledger_count SET until = ends, delivered = delivered + (
        SELECT count(*) FROM delivery
        WHERE state = 'delivered' AND finished_at >= until AND finished_at < ends)
    FROM slice WHERE ends > until
    RETURNING ends < now() - make_interval(secs => {_COMMITTED}) AS more
""")
    .bindparams(sa.bindparam("batch", type_=sa.Integer))
    .columns(more=sa.Boolean)
)


async def count(tx: AsyncConnection, batch: int = SLICE) -> bool:
    """Count what was delivered since the last time, for the ledger check.

    :returns: whether there is more to count
    """
    await tx.execute(_LOCK_COUNT)
    return bool(await tx.scalar(_COUNT, {"batch": batch}))
