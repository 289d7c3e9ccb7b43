"""Queries for operators: lists, one alert, statistics, the ledger check."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.store.tables import BARE, KEPT, OPEN, attempt, delivery, names

run = Queries(
    __file__, json=["found"], open=OPEN, kept=KEPT, of_bare=BARE,
    of_attempt=names(attempt), of_delivery=names(delivery),
)  # fmt: skip

SLICE: Final = 500_000  # rows that an index scan counts well within the statement time-out

Cursor = tuple[datetime, UUID, str]
BEGINNING: Final[Cursor] = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0), "")


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


async def paged(
    tx: AsyncConnection, name: str, chosen: Filter, after: Cursor | None, limit: int,
    *, bare: bool = False,
) -> list[Any]:  # fmt: skip
    """Return a page of a list, oldest first, each row with the `size` of its payload in bytes.

    :param bare: without payload and size
    """
    given = {**asdict(chosen), "lists": [name], "after": after or BEGINNING, "limit": limit}
    return await run(tx, "bare" if bare else "paged", **given)


async def locked(
    tx: AsyncConnection, name: str, chosen: Filter, after: Cursor | None, limit: int,
    *, retriable: bool = False, wait: bool = False,
) -> list[Any]:  # fmt: skip
    """Lock some rows of a list, and return them without their payloads.

    :param retriable: only rows for which a retry does something
    :param wait: wait for locked rows instead of skipping them; only while nothing else
        is locked, or two transactions may deadlock
    """
    given = {**asdict(chosen), "lists": [name], "after": after or BEGINNING, "limit": limit}
    return await run(tx, "waited_for" if wait else "locked", **given, retriable=retriable)


async def count(tx: AsyncConnection, chosen: Filter, lists: Sequence[str]) -> tuple[int, int]:
    """Count the chosen rows in these lists; without lists, in any state.

    :returns: all of them, and those without a payload
    """
    every, empty = (await run(tx, "count", **asdict(chosen), lists=list(lists))).one()
    return every, empty


async def stats(tx: AsyncConnection) -> dict[str, dict[str, Any]]:
    """Count rows by target, without reading the delivered ones, which may be millions."""
    rows = [row._asdict() for row in await run(tx, "stats")]
    return {row.pop("target"): row for row in rows}


async def check(tx: AsyncConnection, targets: Sequence[str], seconds: float) -> dict[str, int]:
    """Count every term of the ledger check from the rows themselves, in one snapshot.

    :param tx: a new transaction; it may last some seconds for ten million delivered rows
    :param targets: whose rows may be stranded: not paused, and without any message
    :param seconds: after its due time from which such a row is stranded
    """
    await run(tx, "take_snapshot")
    found = (await run(tx, "check", targets=list(targets), seconds=seconds)).one()
    terms = {name: int(number) for name, number in found._asdict().items()}
    after: datetime | None = BEGINNING[0]
    while after is not None:
        rows, after = (await run(tx, "delivered", begin=after, batch=SLICE)).one()
        terms["delivered"] += rows
    return terms


async def last_check(tx: AsyncConnection, seconds: float) -> dict[str, Any] | None:
    """Return the last result; None when it is too old, and the caller is the one to count now.

    :param seconds: the age from which it is too old
    """
    if await run(tx, "claim_check", seconds=seconds):
        return None
    found: dict[str, Any] = (await run(tx, "last")).scalar_one()
    return found
