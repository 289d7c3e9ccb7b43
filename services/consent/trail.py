"""The audit trail: append-only, encrypted cell by cell, chained over the stored bytes.

A row's hash is SHA-256 over the hash before it and the row in PostgreSQL's binary form of a
composite (`record_send`). The database's trigger writes it (migration 0001), so that nobody who
may only insert can fork the chain; `verify` computes it here, from the bytes read back.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from time import monotonic
from typing import Any, NamedTuple, Protocol, Self
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.consent.consent import Action
from services.consent.store.tables import consent_audit_log as log
from services.consent.vault import PersonKey

BATCH = 1_000  # rows of 50 KB are possible: they must fit into memory, too
MAX_USER_AGENT = 512
MAX_ENTRIES = 1_000

_CELLS = ("email", "ip_address", "user_agent", "reason", "session_id", "evidence")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, as the gateway resolved it."""

    ip_address: str | None = None
    user_agent: str | None = None
    ip_address_from: str | None = None
    """How the address was found: the peer's own, or a trusted proxy's word."""


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
    evidence = dict(entry.evidence)
    if entry.origin.ip_address_from:
        evidence["ip_address_from"] = entry.origin.ip_address_from
    texts = (
        entry.email,
        entry.origin.ip_address,
        (entry.origin.user_agent or "")[:MAX_USER_AGENT] or None,
        entry.reason,
        entry.session_id,
        json.dumps(evidence, ensure_ascii=False) if evidence else None,
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


async def address(tx: AsyncConnection, person_id: UUID, key: PersonKey) -> str | None:
    """Return the address as the person's last entry has it; None without an entry."""
    found = await tx.scalar(
        sa.select(log.c.email)
        .where(log.c.person_id == person_id)
        .order_by(log.c.timestamp.desc(), log.c.id.desc())
        .limit(1)
    )
    return key.decrypt("email", found)


async def last(tx: AsyncConnection, person_id: UUID) -> tuple[str, datetime] | None:
    found = await tx.execute(
        sa.select(log.c.action, log.c.timestamp)
        .where(log.c.person_id == person_id)
        .order_by(log.c.timestamp.desc(), log.c.id.desc())
        .limit(1)
    )
    row = found.one_or_none()
    return row and (row.action, row.timestamp)


class Place(NamedTuple):
    """A place in the chain, right after the row of this number."""

    rows: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.rows}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """:raises ValueError: not what `str` makes of one"""
        found = re.fullmatch("([0-9]{1,18}):([0-9a-f]{64})", text)
        if found is None:
            raise ValueError("not a place in the chain")
        return cls(int(found[1]), bytes.fromhex(found[2]))


START = Place(0, bytes(32))


async def head(tx: AsyncConnection) -> Place:
    found = await tx.execute(sa.select(log.c.id, log.c.hash).order_by(log.c.id.desc()).limit(1))
    row = found.one_or_none()
    return START if row is None else Place(row.id, row.hash)


async def places(tx: AsyncConnection, rows: Iterable[int]) -> list[Place]:
    """Read what is stored as these rows' hashes, in the order of the chain; some may be missing."""
    found = await tx.execute(
        sa.select(log.c.id, log.c.hash).where(log.c.id.in_(rows)).order_by(log.c.id)
    )
    return [Place(row.id, row.hash) for row in found]


class Witnesses(Protocol):
    """Who saw the chain before, and wrote down what it was like."""

    def agree(self, place: Place) -> bool | None:
        """Say whether they saw this place as it is now; None when nobody was there."""

    def saw_beyond(self, rows: int) -> bool:
        """Say whether the chain was once longer than this."""


@dataclass(frozen=True, slots=True)
class Verification:
    ok: bool
    reached: Place
    """Up to here each row follows from the one before: where to go on."""
    first_broken: int | None
    complete: bool = True
    """Whether it ended at the head of the chain, or at a broken row, and not for want of time."""


# The form that the trigger hashes; the two must name the same columns in the same order. As text,
# for the drivers' and SQLAlchemy's own ways from a bytea to bytes cost more than the hashing.
_STORED = sa.text(f"""
    SELECT id, encode(hash, 'hex') AS hash, encode(record_send(ROW(
        id, person_id, action, "timestamp", {", ".join(_CELLS)}
    )), 'hex') AS stored
    FROM consent_audit_log WHERE id > :after AND id <= :until ORDER BY id
""")


async def verify(
    engine: AsyncEngine,
    *,
    start: Place = START,
    seconds: float = math.inf,
    witnesses: Witnesses | None = None,
) -> Verification:
    """Walk the chain up to its present head, a batch at a time, and name the first broken row.

    A row that is missing is named by the number it had. Where a witness contradicts a chain that
    fits together, the first row after the last place that a witness knows may be the first one.

    :param start: what the caller trusts, from a verification or a checkpoint of before
    :param seconds: after which to stop; the caller goes on from `reached`
    """
    until = monotonic() + seconds
    async with engine.connect() as tx:
        end = (await head(tx)).rows
    reached, known = start, start.rows
    while reached.rows < end:
        if monotonic() >= until:
            return Verification(ok=True, reached=reached, first_broken=None, complete=False)
        async with engine.connect() as tx:
            # By number and not by LIMIT: without statistics that is sorting all that is left.
            part = {"after": reached.rows, "until": min(reached.rows + BATCH, end)}
            rows = (await tx.execute(_STORED, part)).all()
        for number, stored_hash, stored in rows:
            expected = sha256(reached.hash + bytes.fromhex(stored))
            if number != reached.rows + 1 or stored_hash != expected.hexdigest():
                return Verification(ok=False, reached=reached, first_broken=reached.rows + 1)
            reached = Place(number, expected.digest())
            agreed = witnesses and witnesses.agree(reached)
            if agreed is False:
                return Verification(ok=False, reached=reached, first_broken=known + 1)
            if agreed:
                known = number
        if not rows:  # a gap
            return Verification(ok=False, reached=reached, first_broken=reached.rows + 1)
    if witnesses and witnesses.saw_beyond(end):  # the tail is cut off
        return Verification(ok=False, reached=reached, first_broken=end + 1)
    return Verification(ok=True, reached=reached, first_broken=None)
