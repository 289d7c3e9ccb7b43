"""The audit trail: append-only. Each column is encrypted; the hash chain covers the ciphertext.

A row's hash is SHA-256 over the previous hash and the row in PostgreSQL's binary form of a
composite (`record_send`). The database's trigger writes it (migration 0001), so that a role that
may only insert cannot fork the chain; `verify` recomputes it here from the stored bytes.

Client address and browser have a shorter retention. Their columns hold only the hash of what is
encrypted in `trail_origin`. Once that is deleted no one can read them; the chain still verifies.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic
from typing import Any, NamedTuple, Protocol, Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.process.finding import Finding, say
from services.consent.rules import Action
from services.consent.store.sql import CELLS, run
from services.consent.store.vault import SubjectKey

BATCH = 1_000  # rows may have 50 KB each, and a batch must fit into memory
MAX_USER_AGENT = 512
MAX_ENTRIES = 1_000

_ORIGIN = ("ip_address", "user_agent")
_TRIGGERS = ("trail_link", "trail_refuse")


class Position(NamedTuple):
    """In the hash chain: right after the row of this number, with that row's hash."""

    rows: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.rows}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """:raises ValueError: not in the format of `str`"""
        found = re.fullmatch("([0-9]{1,18}):([0-9a-f]{64})", text)
        if found is None:
            raise ValueError("not a position in the chain")
        return cls(int(found[1]), bytes.fromhex(found[2]))


START = Position(0, bytes(32))


async def head(tx: AsyncConnection) -> Position:
    row = (await run(tx, "head")).one_or_none()
    return Position(*row) if row else START


async def positions(tx: AsyncConnection, rows: Iterable[int]) -> list[Position]:
    """Read the stored hashes of these rows, in the order of the chain; some may be missing."""
    return [Position(*row) for row in await run(tx, "positions", numbers=list(rows))]


async def may_be_undone(tx: AsyncConnection) -> bool:
    """Return whether the next primary may lack rows that this server shows."""
    return bool((await run(tx, "may_be_undone")).scalar())


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, as the gateway resolved it."""

    ip_address: str | None = None
    user_agent: str | None = None
    ip_address_from: str | None = None
    """How the address was determined: it is the peer's, or a trusted proxy reported it."""


@dataclass(frozen=True, slots=True)
class Entry:
    action: Action
    email: str
    """As it was given, not normalised."""
    origin: Origin = Origin()
    reason: str | None = None
    session_id: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


async def append(tx: AsyncConnection, subject_id: UUID, key: SubjectKey, entry: Entry) -> None:
    """Write an entry, as the last statement before the commit.

    From here to the commit the transaction locks the head of the chain, which every writer needs.
    It is locked last, so only briefly, and after the subjects' rows, so no deadlock can arise.
    """
    cells = _cells(key, entry)
    origins = []
    for name in _ORIGIN:
        if (sealed := cells[name]) is not None:
            origins.append(sealed)
            cells[name] = sha256(sealed).digest()
    row = {"subject": subject_id, "action": str(entry.action), **cells}
    await run(tx, "append", **row, origins=origins)


def _cells(key: SubjectKey, entry: Entry) -> dict[str, bytes | None]:
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
    return {name: key.encrypt(name, text) for name, text in zip(CELLS, texts, strict=True)}


async def entries(
    tx: AsyncConnection, subject_id: UUID, key: SubjectKey, *, after: int = 0
) -> list[dict[str, Any]]:
    """Read a subject's entries in the order of the chain, at most a thousand."""
    rows = await run(tx, "rows_of", subject=subject_id, after=after, batch=MAX_ENTRIES)
    return [
        {
            "id": row.id,
            "action": row.action,
            "timestamp": row.timestamp,
            **{name: key.decrypt(name, getattr(row, name)) for name in CELLS[:-1]},
            "evidence": json.loads(key.decrypt("evidence", row.evidence) or "{}"),
        }
        for row in rows
    ]


async def last_email(tx: AsyncConnection, subject_id: UUID, key: SubjectKey) -> str | None:
    """Return the address in the subject's last entry; None without an entry."""
    row = (await run(tx, "last_row", subject=subject_id)).one_or_none()
    return row and key.decrypt("email", row.email)


class Witnesses(Protocol):
    """Earlier records of the chain."""

    def agree(self, position: Position) -> bool | None:
        """Return whether the recorded hash of this position is the same; None if not recorded."""

    def saw_beyond(self, rows: int) -> bool:
        """Return whether the chain was once longer than this."""


@dataclass(frozen=True, slots=True)
class Verification:
    ok: bool
    reached: Position
    """Where to continue: up to here, each row follows from the one before."""
    first_broken: int | None
    complete: bool = True
    """It ended at the head of the chain or at a broken row, and was not out of time."""


async def verify(
    engine: AsyncEngine,
    *,
    start: Position = START,
    seconds: float = math.inf,
    witnesses: Witnesses | None = None,
) -> Verification:
    """Walk the chain up to its current head in batches, and report the first broken row.

    A missing row is reported by its number. If a witness contradicts a consistent chain, the first
    broken row may be any after the last position that a witness confirms.

    :param start: a position that the caller trusts, from an earlier verification or checkpoint
    :param seconds: stop after this time; the caller continues from `reached`
    """
    until = monotonic() + seconds
    async with engine.connect() as tx:
        end = (await head(tx)).rows
    reached, known = start, start.rows
    while reached.rows < end:
        if monotonic() >= until:
            return Verification(ok=True, reached=reached, first_broken=None, complete=False)
        async with engine.connect() as tx:
            until_row = min(reached.rows + BATCH, end)
            rows = await run(tx, "stored", after=reached.rows, until=until_row)
        for number, stored_hash, stored in rows:
            expected = sha256(reached.hash + bytes.fromhex(stored))
            if number != reached.rows + 1 or stored_hash != expected.hexdigest():
                return Verification(ok=False, reached=reached, first_broken=reached.rows + 1)
            reached = Position(number, expected.digest())
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


async def findings(engine: AsyncEngine) -> list[Finding]:
    """Say whether this role may do more to the trail than append to it."""
    may, enabled = (await run.alone(engine, "append_only")).one()
    faults = [f"consent may {', '.join(may)} rows"] if may else []
    faults += [f"the trigger {name} is disabled" for name in _TRIGGERS if name not in enabled]
    return [say("trail-open" if faults else "trail", faults="; ".join(faults))]
