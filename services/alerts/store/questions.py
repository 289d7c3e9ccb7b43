"""What the admin asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.alert import State
from services.alerts.store.tables import KEPT, OPEN, attempt, delivery, duplicate

SLICE: Final = 500_000  # rows that an index counts well within a statement's time-out


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


_ORDER: Final = (delivery.c.created_at, delivery.c.alert_id, delivery.c.target)


def paged(name: str, chosen: Filter, after: Cursor | None, limit: int) -> sa.Select[Any]:
    """Ask for a page of a list, oldest first, each row with the `size` of its payload."""
    size = sa.func.octet_length(sa.cast(delivery.c.payload, sa.Text)).label("size")
    statement = (
        sa.select(delivery, size)
        .where(_LISTS[name], *chosen.where())
        .order_by(*_ORDER)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(sa.tuple_(*_ORDER) > sa.tuple_(*after))
    return statement


async def page(
    tx: AsyncConnection, name: str, chosen: Filter, after: Cursor | None, limit: int
) -> list[Any]:
    return list(await tx.execute(paged(name, chosen, after, limit)))


# Without what may have 256 KiB: a hundred thousand rows may be chosen.
_BARE: Final = (
    *(column for column in delivery.c if column.name != "payload"),
    delivery.c.payload.is_(None).label("empty"),
)
# A retry gives nothing to a row whose copy is in the queue, or on its way, with all attempts left.
_RETRIABLE: Final = (
    delivery.c.payload.is_not(None),
    sa.or_(
        delivery.c.state != State.PENDING,
        delivery.c.spent > 0,
        delivery.c.due_at > sa.func.now(),
    ),
)


async def locked(
    tx: AsyncConnection,
    name: str,
    chosen: Filter,
    after: Cursor | None,
    limit: int,
    *,
    retriable: Sequence[str] | None = None,
) -> list[Any]:
    """Lock some rows of a list, without what others hold, and without their payloads.

    :param retriable: only those to which a retry can give anything, and that one of these targets
        waits for: no queue takes the others
    """
    statement = (
        sa.select(*_BARE).where(_LISTS[name], *chosen.where()).order_by(*_ORDER).limit(limit)
    )
    if retriable is not None:
        statement = statement.where(*_RETRIABLE, delivery.c.target.in_(retriable))
    if after is not None:
        statement = statement.where(sa.tuple_(*_ORDER) > sa.tuple_(*after))
    return list(await tx.execute(statement.with_for_update(skip_locked=True)))


@dataclass(frozen=True, slots=True)
class Found:
    """An alert: its rows in order, and every attempt at them."""

    rows: list[Any]
    """Of this alert, or of the one that it repeats: then `duplicate_of` is its id."""
    attempts: list[Any]


_MINE: Final = sa.select(
    delivery,
    sa.cast(None, sa.Uuid).label("duplicate_of"),
    delivery.c.request_id.label("asked_by"),
    delivery.c.accepted_at.label("asked_at"),
)
_REPEATED: Final = sa.select(
    delivery, duplicate.c.first_id, duplicate.c.request_id, duplicate.c.accepted_at
).join_from(
    duplicate,
    delivery,
    sa.and_(delivery.c.alert_id == duplicate.c.first_id, delivery.c.target == duplicate.c.target),
)


async def find(tx: AsyncConnection, alert_id: UUID) -> Found:
    rows = list(
        await tx.execute(
            sa.union_all(
                _MINE.where(delivery.c.alert_id == alert_id),
                _REPEATED.where(duplicate.c.alert_id == alert_id),
            ).order_by("target")
        )
    )
    attempts = await tx.execute(
        sa.select(attempt)
        .where(attempt.c.alert_id.in_({row.alert_id for row in rows}))
        .order_by(attempt.c.target, attempt.c.number)
    )
    return Found(rows, list(attempts))


# One statement, so one snapshot: what is delivered is what is left of what was accepted.
# What is open is counted by target alone: delivery_due has that in order, and about as the rows lie
# in the table, which is asked for each row that is too new to be known as visible. Together with
# the oldest it was read by delivery_open, to and fro between pages, and took three times as long.
STATS = (
    sa.text(f"""
    WITH counted AS (
        SELECT target, count(*) AS pending FROM delivery WHERE {OPEN} GROUP BY target
    ), open AS (
        SELECT target, pending, (
            SELECT CAST(extract(epoch FROM now() - created_at) AS float) FROM delivery
            WHERE {OPEN} AND delivery.target = counted.target ORDER BY created_at LIMIT 1
        ) AS oldest
        FROM counted
    ), kept AS (
        SELECT target,
            count(*) FILTER (WHERE state = 'failed') AS failed,
            count(*) FILTER (WHERE state = 'discarded') AS discarded,
            count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt
        FROM delivery WHERE {KEPT} GROUP BY target
    )
    SELECT target, accepted, duplicates,
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
    duplicates=sa.BigInteger,
    pending=sa.BigInteger,
    failed=sa.BigInteger,
    discarded=sa.BigInteger,
    in_doubt=sa.BigInteger,
    oldest_pending_seconds=sa.Float,
)


async def stats(tx: AsyncConnection) -> dict[str, dict[str, Any]]:
    """Count by target without looking at what was delivered, which may be millions of rows."""
    found: dict[str, dict[str, Any]] = {}
    for row in await tx.execute(STATS):
        counts = row._asdict()
        rest = sum(counts[name] for name in ("pending", "failed", "discarded", "in_doubt"))
        found[counts.pop("target")] = {**counts, "delivered": counts["accepted"] - rest}
    return found


_TERMS: Final = (
    "accepted", "delivered", "pending", "failed", "discarded", "in_doubt", "duplicates", "stranded",
)  # fmt: skip
_CHECK = (
    sa.text(f"""
    WITH total AS (
        SELECT coalesce(sum(accepted), 0) AS accepted, coalesce(sum(delivered), 0) AS delivered,
            coalesce(sum(failed), 0) AS failed, coalesce(sum(discarded), 0) AS discarded,
            coalesce(sum(duplicates), 0) AS duplicates
        FROM ledger_total
    ), kept AS (
        SELECT count(*) FILTER (WHERE state = 'failed') AS failed,
            count(*) FILTER (WHERE state = 'discarded') AS discarded,
            count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt
        FROM delivery WHERE {KEPT}
    ), stranded AS (
        SELECT count(*) AS rows FROM delivery
        WHERE {OPEN} AND target = ANY(CAST(:targets AS text[]))
            AND due_at < now() - make_interval(secs => :seconds)
            AND (lease_until IS NULL OR lease_until < now() - make_interval(secs => :seconds))
    )
    SELECT total.accepted, total.duplicates,
        total.delivered + ledger_count.delivered + (
            SELECT count(*) FROM delivery
            WHERE state = 'delivered' AND finished_at >= (SELECT until FROM ledger_count)
        ) AS delivered,
        (SELECT count(*) FROM delivery WHERE {OPEN}) AS pending,
        total.failed + kept.failed AS failed,
        total.discarded + kept.discarded AS discarded,
        kept.in_doubt, stranded.rows AS stranded,
        ledger_count.delivered AS memo
    FROM total, kept, stranded, ledger_count
""")
    .bindparams(
        sa.bindparam("targets", type_=ARRAY(sa.Text)), sa.bindparam("seconds", type_=sa.Float)
    )
    .columns(**dict.fromkeys((*_TERMS, "memo"), sa.BigInteger))
)
# A slice of the index, with all that ended at the same moment: each statement ends in its time.
_RECOUNT = (
    sa.text("""
    SELECT count(*) AS rows, max(finished_at) AS last FROM (
        SELECT finished_at FROM delivery
        WHERE state = 'delivered' AND finished_at > :after
            AND finished_at < (SELECT until FROM ledger_count)
        ORDER BY finished_at FETCH FIRST :batch ROWS WITH TIES
    ) AS slice
""")
    .bindparams(
        sa.bindparam("after", type_=sa.DateTime(timezone=True)),
        sa.bindparam("batch", type_=sa.BigInteger),
    )
    .columns(rows=sa.BigInteger, last=sa.DateTime(timezone=True))
)
_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)


async def check(
    tx: AsyncConnection, targets: Sequence[str], seconds: float, *, full: bool = False
) -> dict[str, int]:
    """Count every term of P1's equation from the rows themselves, in one snapshot.

    But for what was delivered a while ago, which may be millions of rows: that was counted once,
    when it was no while ago (`upkeep.count`), and is not looked at again but by a full check.

    :param targets: those that are not paused, and whose copies are all gone
    :param full: count every row; the transaction is new, and may last some seconds
    """
    if full:
        await tx.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    row = (await tx.execute(_CHECK, {"targets": list(targets), "seconds": seconds})).one()
    terms = {name: int(getattr(row, name)) for name in _TERMS}
    if full:
        terms["delivered"] += await _recount(tx) - int(row.memo)
    return terms


async def _recount(tx: AsyncConnection) -> int:
    rows, after = 0, _BEGINNING
    while True:
        found = (await tx.execute(_RECOUNT, {"after": after, "batch": SLICE})).one()
        if found.last is None:
            return rows
        rows, after = rows + int(found.rows), found.last


async def count(tx: AsyncConnection, chosen: Filter, lists: Sequence[str]) -> tuple[int, int]:
    """Count the chosen rows in these lists; in none: in whatever state.

    :returns: all, and those whose payload is gone
    """
    where = [*chosen.where(), *([sa.or_(*(_LISTS[name] for name in lists))] if lists else [])]
    found = await tx.execute(
        sa.select(sa.func.count(), sa.func.count().filter(delivery.c.payload.is_(None))).where(
            *where
        )
    )
    every, empty = found.one()
    return int(every), int(empty)


async def ping(tx: AsyncConnection) -> None:
    await tx.execute(sa.text("SELECT 1"))
