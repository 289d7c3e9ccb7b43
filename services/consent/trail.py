"""The audit trail: append-only, encrypted cell by cell, chained over the stored bytes.

A row's hash is SHA-256 over the hash before it and the row in PostgreSQL's binary form of a
composite (`record_send`). The database's trigger writes it (migration 0001), so that nobody who
may only insert can fork the chain; `verify` computes it here, from the bytes read back.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.consent.consent import Action
from services.consent.store import consent_audit_log as log
from services.consent.store import trail_head as head_row
from services.consent.vault import PersonKey

GENESIS = bytes(32)
BATCH = 2_000
MAX_USER_AGENT = 512
MAX_ENTRIES = 1_000

_CELLS = ("email", "ip_address", "user_agent", "reason", "session_id", "evidence")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, as the gateway resolved it."""

    ip_address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    action: Action
    email: str
    """As it was given, not as it is looked up."""
    origin: Origin = Origin()
    reason: str | None = None
    session_id: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


_APPEND = sa.text(
    f"INSERT INTO consent_audit_log (person_id, action, {', '.join(_CELLS)}) "
    "SELECT * FROM unnest(CAST(:person_id AS uuid[]), CAST(:action AS text[]), "
    + ", ".join(f"CAST(:{cell} AS bytea[])" for cell in _CELLS)
    + ")"
)


async def append(tx: AsyncConnection, entries: Iterable[tuple[UUID, PersonKey, Entry]]) -> None:
    """Write entries in their order, as the last statement before the commit.

    From here to the commit the transaction holds the head of the chain, which everybody needs:
    taken last it is held shortly, and after the persons' rows it can close no circle.
    """
    rows = [
        (str(person_id), str(entry.action), *_cells(key, entry))
        for person_id, key, entry in entries
    ]
    names = ("person_id", "action", *_CELLS)
    await tx.execute(
        _APPEND,
        {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)},
    )


def _cells(key: PersonKey, entry: Entry) -> list[bytes | None]:
    texts = (
        entry.email,
        entry.origin.ip_address,
        (entry.origin.user_agent or "")[:MAX_USER_AGENT] or None,
        entry.reason,
        entry.session_id,
        json.dumps(entry.evidence, ensure_ascii=False) if entry.evidence else None,
    )
    return [key.encrypt(name, text) for name, text in zip(_CELLS, texts, strict=True)]


async def entries(
    tx: AsyncConnection, person_id: UUID, key: PersonKey, *, after: int = 0
) -> list[dict[str, Any]]:
    """Read a person's entries in the order of the chain, at most a thousand."""
    rows = await tx.execute(
        sa.select(log)
        .where(log.c.person_id == person_id, log.c.id > after)
        .order_by(log.c.id)
        .limit(MAX_ENTRIES)
    )
    return [
        {
            "id": row["id"],
            "action": row["action"],
            "timestamp": row["timestamp"].isoformat(),
            **{name: key.decrypt(name, row[name]) for name in _CELLS[:-1]},
            "evidence": json.loads(key.decrypt("evidence", row["evidence"]) or "{}"),
        }
        for row in rows.mappings()
    ]


async def last(tx: AsyncConnection, person_id: UUID) -> tuple[str, datetime] | None:
    found = await tx.execute(
        sa.select(log.c.action, log.c.timestamp)
        .where(log.c.person_id == person_id)
        .order_by(log.c.timestamp.desc(), log.c.id.desc())
        .limit(1)
    )
    row = found.one_or_none()
    return row and (row.action, row.timestamp)


@dataclass(frozen=True, slots=True)
class Verification:
    ok: bool
    rows: int
    """How many rows were found whole, from the first on."""
    first_broken: int | None


# The form that the trigger hashes; the two must name the same columns in the same order.
_STORED = sa.text(f"""
    SELECT id, hash, record_send(ROW(
        id, person_id, action, "timestamp", {", ".join(_CELLS)}
    )) AS stored
    FROM consent_audit_log WHERE id > :after AND id <= :head ORDER BY id LIMIT {BATCH}
""").columns(id=sa.BigInteger, hash=sa.LargeBinary, stored=sa.LargeBinary)


async def verify(engine: AsyncEngine) -> Verification:
    """Walk the chain up to its present head, a batch at a time, and name the first broken row.

    A row that is missing is named by the number it had.
    """
    async with engine.begin() as tx:
        head = (await tx.execute(sa.select(head_row.c.id, head_row.c.hash))).one()
    previous, count = GENESIS, 0
    while count < head.id:
        async with engine.begin() as tx:
            rows = (await tx.execute(_STORED, {"after": count, "head": head.id})).all()
        for row in rows:
            expected = hashlib.sha256(previous + row.stored).digest()
            if row.id != count + 1 or row.hash != expected:
                return Verification(ok=False, rows=count, first_broken=count + 1)
            previous, count = expected, count + 1
        if not rows:  # the tail is cut off
            return Verification(ok=False, rows=count, first_broken=count + 1)
    if previous != head.hash:  # rows and head were both rewritten, but not by the trigger
        return Verification(ok=False, rows=count, first_broken=count or 1)
    return Verification(ok=True, rows=count, first_broken=None)
