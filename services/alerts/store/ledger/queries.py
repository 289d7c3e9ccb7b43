"""Queries for operators: lists, one alert, statistics, the ledger check."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.rules.delivery import State
from services.alerts.store.sql import sql, statements
from services.alerts.store.tables import KEPT, OPEN, delivery

SQL: Final = statements(__file__, open=OPEN, kept=KEPT)

SLICE: Final = 500_000  # rows that an index scan counts well within the statement time-out


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows; an empty filter matches all."""

    ids: Sequence[UUID] | None = None
    target: str | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    as_of: datetime | None = None
    """Excludes rows that entered their state (failed, or were requeued) after this time."""

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
        if self.as_of is not None:  # greatest() leaves out NULLs
            since = sa.func.greatest(column.created_at, column.requeued_at, column.finished_at)
            found.append(since < self.as_of)
        return found


Cursor = tuple[datetime, UUID, str]

# Literal conditions, or the planner does not use the partial indexes.
_LISTS: Final = {
    "pending": sa.text(OPEN),
    "failed": sa.text(f"{KEPT} AND state = 'failed'"),
    "in_doubt": sa.text(f"{KEPT} AND state = 'in_doubt'"),
    "silenced": sa.text(f"{KEPT} AND state = 'discarded' AND reason = 'silenced'"),
    "either": sa.text(f"({OPEN} OR state = 'failed')"),  # no index: for queries by id
}


_ORDER: Final = (delivery.c.created_at, delivery.c.alert_id, delivery.c.target)


def paged(
    name: str, chosen: Filter, after: Cursor | None, limit: int, *, bare: bool = False
) -> sa.Select[Any]:
    """Select a page of a list, oldest first, each row with the `size` of its payload in bytes.

    :param bare: without payload and size
    """
    size = sa.func.octet_length(sa.cast(delivery.c.payload, sa.Text)).label("size")
    statement = (
        sa.select(*(BARE if bare else (delivery, size)))
        .where(_LISTS[name], *chosen.where())
        .order_by(*_ORDER)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(sa.tuple_(*_ORDER) > sa.tuple_(*after))
    return statement


# Without the payload of up to 256 KiB: a hundred thousand rows may be chosen.
BARE: Final = (
    *(column for column in delivery.c if column.name != "payload"),
    delivery.c.payload.is_(None).label("empty"),
)
# A retry does nothing for a row with all attempts left whose message is queued or on its way.
_RETRIABLE: Final = (
    delivery.c.payload.is_not(None),
    sa.or_(
        delivery.c.state != State.PENDING,
        delivery.c.attempts > 0,
        # But not a row that a retry requeued a moment ago, whose message waits in the outbox.
        sa.and_(
            delivery.c.due_at > sa.func.now(),
            sa.or_(delivery.c.requeued_at.is_(None), delivery.c.reason.is_not(None)),
        ),
    ),
)


async def locked(
    tx: AsyncConnection,
    name: str,
    chosen: Filter,
    after: Cursor | None,
    limit: int,
    *,
    retriable: bool = False,
    wait: bool = False,
) -> list[Any]:
    """Lock some rows of a list, and return them without their payloads.

    :param retriable: only rows for which a retry does something
    :param wait: wait for locked rows instead of skipping them; only while nothing else
        is locked, or two transactions may deadlock
    """
    statement = paged(name, chosen, after, limit, bare=True)
    if retriable:
        statement = statement.where(*_RETRIABLE)
    return list(await tx.execute(statement.with_for_update(skip_locked=not wait)))


@dataclass(frozen=True, slots=True)
class AlertDetails:
    """An alert: its rows by target, and every attempt to deliver them."""

    rows: list[Any]
    """Of this alert, or of the first one that it repeats: then `duplicate_of` is that one's id."""
    attempts: list[Any]


async def find(tx: AsyncConnection, alert_id: UUID) -> AlertDetails:
    rows = list(await tx.execute(SQL["find"], {"alert_id": alert_id}))
    ids = {row.alert_id for row in rows}
    attempts = await tx.execute(SQL["attempts"], {"alert_ids": list(ids)})
    return AlertDetails(rows, list(attempts))


async def stats(tx: AsyncConnection) -> dict[str, dict[str, Any]]:
    """Count rows by target, without reading the delivered ones, which may be millions."""
    found: dict[str, dict[str, Any]] = {}
    for row in await tx.execute(SQL["stats"]):
        counts = row._asdict()
        rest = sum(counts[name] for name in ("pending", "failed", "discarded", "in_doubt"))
        found[counts.pop("target")] = {**counts, "delivered": counts["accepted"] - rest}
    return found


_TERMS: Final = (
    "accepted", "delivered", "pending", "failed", "discarded", "in_doubt", "duplicates", "stranded",
)  # fmt: skip
_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)


async def check(tx: AsyncConnection, targets: Sequence[str], seconds: float) -> dict[str, int]:
    """Count every term of the ledger check from the rows themselves, in one snapshot.

    :param tx: a new transaction; it may last some seconds for ten million delivered rows
    :param targets: whose rows may be stranded: not paused, and without any message
    :param seconds: after its due time from which such a row is stranded
    """
    await tx.execute(sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    row = (await tx.execute(SQL["check"], {"targets": list(targets), "seconds": seconds})).one()
    terms = {name: int(getattr(row, name)) for name in _TERMS}
    after: datetime | None = _BEGINNING
    while after is not None:
        found = (await tx.execute(SQL["delivered"], {"begin": after, "batch": SLICE})).one()
        terms["delivered"] += int(found.rows)
        after = found.last
    return terms


async def last_check(tx: AsyncConnection, seconds: float) -> dict[str, Any] | None:
    """Return the last result; None when it is too old, and the caller is the one to count now.

    :param seconds: the age from which it is too old
    """
    if (await tx.execute(SQL["claim_check"], {"seconds": seconds})).first() is not None:
        return None
    found: dict[str, Any] = (await tx.execute(SQL["last"])).scalar_one()
    return found


async def keep_check(tx: AsyncConnection, found: Mapping[str, Any]) -> None:
    await tx.execute(SQL["keep"], {"found": dict(found)})


async def count(tx: AsyncConnection, chosen: Filter, lists: Sequence[str]) -> tuple[int, int]:
    """Count the chosen rows in these lists; without lists, in any state.

    :returns: all of them, and those without a payload
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
    await tx.execute(sql("SELECT 1"))
