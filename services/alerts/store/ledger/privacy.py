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
from services.alerts.store.sql import sql

PAGE: Final = 16
"""Rows per reply: a payload may be 256 KiB, and RabbitMQ takes no message above 16 MiB."""
BATCH: Final = 500
BEGINNING: Final = (UUID(int=0), "")
_INTAKE = postgres.advisory_key("alerts erasure")

Key = tuple[UUID, str]

_AFTER: Final = "(alert_id, target) > (:alert_id, :target) ORDER BY alert_id, target"

_LOOK = sql(f"""
    SELECT alert_id, target, event_type, severity, state, reason, payload, accepted_at,
        finished_at, attempt, error, once_address, once_purpose, once_reference, dedup_key,
        CAST(subjects AS text[]) AS named
    FROM delivery
    WHERE subjects <> '{{}}' AND subjects && CAST(:hashes AS bytea[]) AND {_AFTER} LIMIT {PAGE}
""")


async def look(tx: AsyncConnection, hashes: Sequence[Hash], after: Key) -> list[Any]:
    """Return the next page of rows that name one of these; the last has fewer than PAGE."""
    values = {"hashes": list(hashes), "alert_id": after[0], "target": after[1]}
    return list(await tx.execute(_LOOK, values))


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


_WORDS = sql(f"""
    SELECT alert_id, target, payload, dedup_key, once_address, subjects <> '{{}}' AS names_somebody
    FROM delivery WHERE {_AFTER} LIMIT {BATCH}
""")


async def page(tx: AsyncConnection, after: Key) -> tuple[list[Any], Key | None]:
    """Read the next part of the ledger.

    :returns: its rows that name a data subject, and where the next part begins; None at the end
    """
    rows = list(await tx.execute(_WORDS, {"alert_id": after[0], "target": after[1]}))
    end = (rows[-1].alert_id, rows[-1].target) if len(rows) == BATCH else None
    return [row for row in rows if row.names_somebody], end


_ERASE = sql("""
    UPDATE delivery SET
        payload = NULL, dedup_key = NULL, subjects = '{}',
        once_address = CASE WHEN once_address IS NOT NULL THEN 'erased' END,
        error = CASE WHEN error IS NOT NULL THEN 'erased' END,
        reason = CASE WHEN state = 'pending' THEN 'erased' ELSE reason END,
        finished_at = coalesce(finished_at, now()),
        state = CASE WHEN state = 'pending' THEN 'discarded' ELSE state END
    WHERE alert_id = :alert_id AND target = :target AND state NOT IN ('claimed', 'sending')
    RETURNING 1 AS matched
""")
_LOCK = sql("SELECT state FROM delivery WHERE alert_id = :alert_id AND target = :target FOR UPDATE")


async def erase(tx: AsyncConnection, row: Any) -> State | None:
    """Empty a row, and discard it if it is pending. The row stays, because it is counted.

    :returns: its state before; None when it does not exist. In `claimed` and `sending` nothing has
        changed
    """
    key = {"alert_id": row.alert_id, "target": row.target}
    before = (await tx.execute(_LOCK, key)).scalar_one_or_none()
    if before is None:
        return None
    if (await tx.execute(_ERASE, key)).one_or_none() is not None:
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


_STRIKE = sql("""
    UPDATE delivery SET payload = :payload, subjects = ARRAY(
        SELECT unnest(subjects) EXCEPT SELECT unnest(CAST(:hashes AS bytea[])))
    WHERE alert_id = :alert_id AND target = :target AND payload IS NOT NULL
        AND state NOT IN ('claimed', 'sending')
""")


async def strike(tx: AsyncConnection, row: Any, payload: Any, gone: Collection[Hash]) -> bool:
    """Change the payload of a row that names these no longer.

    :returns: False when the row is being sent at this moment
    """
    key = {"alert_id": row.alert_id, "target": row.target}
    before = (await tx.execute(_LOCK, key)).scalar_one_or_none()
    await tx.execute(_STRIKE, {**key, "payload": payload, "hashes": list(gone)})
    return before not in {State.CLAIMED, State.SENDING}


_EXCLUDE = sql(f"SELECT pg_advisory_xact_lock({_INTAKE})")
_SHARE = sql(f"SELECT pg_advisory_xact_lock_shared({_INTAKE})")
_MARK = sql("""
    INSERT INTO erased_subject AS mine (hash)
    SELECT unnest(CAST(:hashes AS bytea[]))
    ON CONFLICT (hash) DO UPDATE SET erased_at = now()
""")
# What a gateway accepted is compared by its own clock, which may be ahead of the database's.
_ERASED = sql(f"""
    SELECT CAST(hash AS text) AS hash,
        erased_at + interval '{postgres.CLOCKS_APART_SECONDS} s' AS erased_at
    FROM erased_subject WHERE hash = ANY(CAST(:hashes AS bytea[]))
""")


async def mark_erased(tx: AsyncConnection, hashes: Iterable[Hash]) -> None:
    """Write tombstones; every intake transaction either precedes this one or sees them."""
    await tx.execute(_EXCLUDE)
    await tx.execute(_MARK, {"hashes": sorted(hashes)})


async def erased_since(tx: AsyncConnection, hashes: Iterable[Hash]) -> dict[Hash, Any]:
    """Return when these were erased, where they were; an erasure waits for this transaction."""
    await tx.execute(_SHARE)
    # A separate statement: its snapshot must be younger than the lock.
    return await erased_at(tx, hashes)


async def erased_at(tx: AsyncConnection, hashes: Iterable[Hash]) -> dict[Hash, Any]:
    """Return the same without making an erasure wait."""
    found = await tx.execute(_ERASED, {"hashes": sorted(hashes)})
    return {row.hash: row.erased_at for row in found}


async def forget_erased(tx: AsyncConnection, seconds: float) -> None:
    """Delete tombstones older than this: no message from before them can be on its way."""
    await tx.execute(
        sql("DELETE FROM erased_subject WHERE erased_at < now() - make_interval(secs => :seconds)"),
        {"seconds": seconds},
    )
