"""The statements of the audit trail. The caller seals the cells."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import Action
from services.consent.store.position import START, Position
from services.consent.store.sql import CELLS, sql
from services.consent.store.tables import consent_audit_log as log
from services.consent.store.tables import trail_origin

_APPEND = sql(
    "WITH origin AS (INSERT INTO trail_origin (sealed) SELECT unnest(CAST(:origins AS bytea[]))) "
    f"INSERT INTO consent_audit_log (subject_id, action, {', '.join(CELLS)}) "
    f"VALUES (:subject, :action, {', '.join(f':{cell}' for cell in CELLS)})"
)


async def append(
    tx: AsyncConnection,
    subject_id: UUID,
    action: Action,
    cells: Mapping[str, bytes | None],
    origins: Sequence[bytes],
) -> None:
    """Append a row.

    :param origins: stored beside the trail; the cells have their hashes
    """
    values = {"subject": subject_id, "action": str(action), "origins": list(origins)}
    await _APPEND.execute(tx, values | dict(cells))


async def rows_of(
    tx: AsyncConnection, subject_id: UUID, *, after: int, limit: int
) -> list[dict[str, Any]]:
    """Read a subject's rows in the order of the chain."""
    rows = await tx.execute(
        sa.select(log)
        .where(log.c.subject_id == subject_id, log.c.id > after)
        .order_by(log.c.id)
        .limit(limit)
    )
    return [dict(row) for row in rows.mappings()]


async def origins(tx: AsyncConnection, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    """Read stored origins by hash; those past their retention are missing."""
    found = await tx.execute(
        sa.select(trail_origin.c.hash, trail_origin.c.sealed).where(trail_origin.c.hash.in_(hashes))
    )
    return {row.hash: row.sealed for row in found}


async def last_row(tx: AsyncConnection, subject_id: UUID) -> Any:
    """Read `action`, `timestamp` and the sealed `email` of the subject's last row."""
    rows = await tx.execute(
        sa.select(log.c.action, log.c.timestamp, log.c.email)
        .where(log.c.subject_id == subject_id)
        .order_by(log.c.timestamp.desc(), log.c.id.desc())
        .limit(1)
    )
    return rows.one_or_none()


async def last_opt_ins(tx: AsyncConnection, subject_id: UUID, limit: int) -> Sequence[bytes]:
    """Read the sealed evidence of a subject's latest opt-ins, the newest first."""
    rows = await tx.execute(
        sa.select(log.c.evidence)
        .where(log.c.subject_id == subject_id, log.c.action == Action.OPT_IN)
        .order_by(log.c.timestamp.desc(), log.c.id.desc())
        .limit(limit)
    )
    return rows.scalars().all()


async def head(tx: AsyncConnection) -> Position:
    found = await tx.execute(sa.select(log.c.id, log.c.hash).order_by(log.c.id.desc()).limit(1))
    row = found.one_or_none()
    return START if row is None else Position(row.id, row.hash)


async def may_be_undone(tx: AsyncConnection) -> bool:
    """Return whether the next primary may lack rows that this server shows.

    A primary that is demoted ends the commits that still wait for a standby, and shows their rows.
    It then accepts no writes.
    """
    return bool(await tx.scalar(sa.text("SELECT current_setting('transaction_read_only')::bool")))


async def positions(tx: AsyncConnection, rows: Iterable[int]) -> list[Position]:
    """Read the stored hashes of these rows, in the order of the chain; some may be missing."""
    found = await tx.execute(
        sa.select(log.c.id, log.c.hash).where(log.c.id.in_(rows)).order_by(log.c.id)
    )
    return [Position(row.id, row.hash) for row in found]


# The same columns in the same order as the trigger hashes. As text, because the drivers' and
# SQLAlchemy's conversions of bytea to bytes cost more than the hashing.
_STORED = sql(f"""
    SELECT id, encode(hash, 'hex') AS hash, encode(record_send(ROW(
        id, subject_id, action, "timestamp", {", ".join(CELLS)}
    )), 'hex') AS stored
    FROM consent_audit_log WHERE id > :after AND id <= :until ORDER BY id
""")


async def stored(tx: AsyncConnection, after: int, until: int) -> Sequence[Any]:
    """Read number, hash and hashed bytes, in hex.

    By number, because without statistics LIMIT would sort all remaining rows.
    """
    return await _STORED.execute(tx, {"after": after, "until": until})
