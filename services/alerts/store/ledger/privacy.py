"""Finds and empties rows that name a data subject; keeps tombstones of the erased."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database import postgres
from services.alerts.messages import columns
from services.alerts.rules.delivery import State
from services.alerts.rules.subjects import Hash
from services.alerts.store import tables
from services.alerts.store.sql import sql, statements

PAGE: Final = 16
"""Rows per reply: a payload may be 256 KiB, and RabbitMQ takes no message above 16 MiB."""
BATCH: Final = 500
BEGINNING: Final = (UUID(int=0), "")
_INTAKE = postgres.advisory_key("alerts erasure")

SQL: Final = statements(
    __file__,
    page=PAGE,
    batch=BATCH,
    intake=_INTAKE,
    clocks_apart_seconds=postgres.CLOCKS_APART_SECONDS,
)

Key = tuple[UUID, str]


async def look(tx: AsyncConnection, hashes: Sequence[Hash], after: Key) -> list[Any]:
    """Return the next page of rows that name one of these; the last has fewer than PAGE."""
    values = {"hashes": list(hashes), "alert_id": after[0], "target": after[1]}
    return list(await tx.execute(SQL["look"], values))


async def attempts(tx: AsyncConnection, rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Return each attempt to deliver these rows, with an excerpt of the target's response."""
    found = await tx.execute(
        sa.select(tables.attempt)
        .where(
            sa.tuple_(tables.attempt.c.alert_id, tables.attempt.c.target).in_(
                [(row.alert_id, row.target) for row in rows]
            )
        )
        .order_by(tables.attempt.c.alert_id, tables.attempt.c.target, tables.attempt.c.number)
    )
    return [{**columns(row, *row._fields), "alert_id": str(row.alert_id)} for row in found]


async def page(tx: AsyncConnection, after: Key) -> tuple[list[Any], Key | None]:
    """Read the next part of the ledger.

    :returns: its rows that name a data subject, and where the next part begins; None at the end
    """
    rows = list(await tx.execute(SQL["words"], {"alert_id": after[0], "target": after[1]}))
    end = (rows[-1].alert_id, rows[-1].target) if len(rows) == BATCH else None
    return [row for row in rows if row.names_somebody], end


async def erase(tx: AsyncConnection, row: Any) -> State | None:
    """Empty a row, and discard it if it is pending. The row stays, because it is counted.

    :returns: its state before; None when it does not exist. In `claimed` and `sending` nothing has
        changed
    """
    key = {"alert_id": row.alert_id, "target": row.target}
    before = (await tx.execute(SQL["lock"], key)).scalar_one_or_none()
    if before is None:
        return None
    if (await tx.execute(SQL["erase"], key)).one_or_none() is not None:
        for table, values in (
            (tables.attempt, {"excerpt": ""}),
            (tables.escalation, {"error": None}),
        ):
            await tx.execute(
                sa.update(table)
                .where(*(table.c[name] == value for name, value in key.items()))
                .values(values)
            )
    return State(before)


async def strike(tx: AsyncConnection, row: Any, payload: Any, gone: Collection[Hash]) -> bool:
    """Replace the payload of a row, which no longer names these.

    :returns: False when the row is being sent at this moment
    """
    key = {"alert_id": row.alert_id, "target": row.target}
    before = (await tx.execute(SQL["lock"], key)).scalar_one_or_none()
    await tx.execute(SQL["strike"], {**key, "payload": payload, "hashes": list(gone)})
    return before not in {State.CLAIMED, State.SENDING}


async def mark_erased(tx: AsyncConnection, hashes: Iterable[Hash]) -> None:
    """Write tombstones; every intake transaction either precedes this one or sees them."""
    await tx.execute(SQL["exclude"])
    await tx.execute(SQL["mark"], {"hashes": sorted(hashes)})


async def erased_since(tx: AsyncConnection, hashes: Iterable[Hash]) -> dict[Hash, Any]:
    """Return when these were erased, if they were; an erasure waits for this transaction."""
    await tx.execute(SQL["share"])
    # A separate statement: its snapshot must be younger than the lock.
    return await erased_at(tx, hashes)


async def erased_at(tx: AsyncConnection, hashes: Iterable[Hash]) -> dict[Hash, Any]:
    """Return the same without making an erasure wait."""
    found = await tx.execute(SQL["erased"], {"hashes": sorted(hashes)})
    return {row.hash: row.erased_at for row in found}


async def forget_erased(tx: AsyncConnection, seconds: float) -> None:
    """Delete tombstones older than this: no message from before them can be on its way."""
    await tx.execute(
        sql("DELETE FROM erased_subject WHERE erased_at < now() - make_interval(secs => :seconds)"),
        {"seconds": seconds},
    )
