"""What the admin asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.alert import State
from services.alerts.store.tables import KEPT, OPEN, attempt, delivery


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows; an empty one is all of them."""

    ids: Sequence[UUID] | None = None
    target: str | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> list[sa.ColumnElement[bool]]:
        column = delivery.c
        found: list[sa.ColumnElement[bool]] = []
        if self.ids is not None:
            found.append(column.alert_id.in_(self.ids))
        if self.target is not None:
            found.append(column.target == self.target)
        if self.event_type is not None:
            found.append(column.event_type == self.event_type)
        if self.since is not None:
            found.append(column.created_at >= self.since)
        if self.until is not None:
            found.append(column.created_at < self.until)
        return found


Cursor = tuple[datetime, UUID, str]

# Literally, or the planner misses the partial indexes.
_LISTS: Final = {
    "pending": sa.text(OPEN),
    "failed": sa.text(f"{KEPT} AND state = 'failed'"),
    "in_doubt": sa.text(f"{KEPT} AND state = 'in_doubt'"),
}


async def page(
    tx: AsyncConnection,
    name: str,
    chosen: Filter,
    after: Cursor | None,
    limit: int,
    *,
    lock: bool = False,
) -> list[Any]:
    """Return a page of a list, oldest first; locked, without what others hold."""
    column = delivery.c
    order = (column.created_at, column.alert_id, column.target)
    statement = (
        sa.select(delivery).where(_LISTS[name], *chosen.where()).order_by(*order).limit(limit)
    )
    if after is not None:
        statement = statement.where(sa.tuple_(*order) > sa.tuple_(*after))
    if lock:
        statement = statement.with_for_update(skip_locked=True)
    return list(await tx.execute(statement))


async def find(tx: AsyncConnection, alert_id: UUID) -> tuple[list[Any], list[Any]]:
    """Return an alert's rows and their attempts, in order."""
    rows = await tx.execute(
        sa.select(delivery).where(delivery.c.alert_id == alert_id).order_by(delivery.c.target)
    )
    attempts = await tx.execute(
        sa.select(attempt)
        .where(attempt.c.alert_id == alert_id)
        .order_by(attempt.c.target, attempt.c.number)
    )
    return list(rows), list(attempts)


# One statement, so one snapshot: what is delivered is what is left of what was accepted.
_STATS = (
    sa.text(f"""
    WITH open AS (
        SELECT target, count(*) AS pending,
            CAST(extract(epoch FROM now() - min(created_at)) AS float) AS oldest
        FROM delivery WHERE {OPEN} GROUP BY target
    ), kept AS (
        SELECT target,
            count(*) FILTER (WHERE state = 'failed') AS failed,
            count(*) FILTER (WHERE state = 'discarded') AS discarded,
            count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt
        FROM delivery WHERE {KEPT} GROUP BY target
    )
    SELECT target, accepted,
        coalesce(open.pending, 0) AS pending,
        ledger_total.failed + coalesce(kept.failed, 0) AS failed,
        ledger_total.discarded + coalesce(kept.discarded, 0) AS discarded,
        coalesce(kept.in_doubt, 0) AS in_doubt,
        oldest AS oldest_pending_seconds
    FROM ledger_total LEFT JOIN open USING (target) LEFT JOIN kept USING (target)
""")
).columns(
    target=sa.Text,
    accepted=sa.BigInteger,
    pending=sa.BigInteger,
    failed=sa.BigInteger,
    discarded=sa.BigInteger,
    in_doubt=sa.BigInteger,
    oldest_pending_seconds=sa.Float,
)


async def stats(tx: AsyncConnection) -> dict[str, dict[str, Any]]:
    """Count by target without looking at what was delivered, which may be millions of rows."""
    found: dict[str, dict[str, Any]] = {}
    for row in await tx.execute(_STATS):
        counts = row._asdict()
        rest = sum(counts[name] for name in ("pending", "failed", "discarded", "in_doubt"))
        found[counts.pop("target")] = {**counts, "delivered": counts["accepted"] - rest}
    return found


_CHECK = (
    sa.text(f"""
    SELECT
        (SELECT coalesce(sum(accepted), 0) FROM ledger_total) AS accepted,
        (SELECT coalesce(sum(delivered), 0) FROM ledger_total) AS purged_delivered,
        (SELECT coalesce(sum(failed), 0) FROM ledger_total) AS purged_failed,
        (SELECT coalesce(sum(discarded), 0) FROM ledger_total) AS purged_discarded,
        count(*) FILTER (WHERE state = 'delivered') AS delivered,
        count(*) FILTER (WHERE {OPEN}) AS pending,
        count(*) FILTER (WHERE state = 'failed') AS failed,
        count(*) FILTER (WHERE state = 'discarded') AS discarded,
        count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt,
        count(*) FILTER (WHERE {OPEN} AND target = ANY(CAST(:targets AS text[]))
            AND coalesce(lease_until, due_at) < now() - make_interval(secs => :seconds)
        ) AS stranded
    FROM delivery
""")
    .bindparams(
        sa.bindparam("targets", type_=ARRAY(sa.Text)), sa.bindparam("seconds", type_=sa.Float)
    )
    .columns(
        **dict.fromkeys(
            (
                "accepted",
                "purged_delivered",
                "purged_failed",
                "purged_discarded",
                "delivered",
                "pending",
                "failed",
                "discarded",
                "in_doubt",
                "stranded",
            ),
            sa.BigInteger,
        )
    )
)


async def check(tx: AsyncConnection, targets: Sequence[str], seconds: float) -> dict[str, int]:
    """Count every term of P1's equation from the rows themselves, in one snapshot.

    :param targets: those that are not paused, and whose queues are empty
    """
    row = (await tx.execute(_CHECK, {"targets": list(targets), "seconds": seconds})).one()
    return {
        "accepted": int(row.accepted),
        "delivered": int(row.delivered + row.purged_delivered),
        "pending": int(row.pending),
        "failed": int(row.failed + row.purged_failed),
        "discarded": int(row.discarded + row.purged_discarded),
        "in_doubt": int(row.in_doubt),
        "stranded": int(row.stranded),
    }


async def count(tx: AsyncConnection, chosen: Filter, states: Sequence[State]) -> int:
    found = await tx.scalar(
        sa.select(sa.func.count())
        .select_from(delivery)
        .where(delivery.c.state.in_(states), *chosen.where())
    )
    return int(found or 0)


async def ping(tx: AsyncConnection) -> None:
    await tx.execute(sa.text("SELECT 1"))
