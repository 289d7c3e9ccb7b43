"""The audit trail. The caller seals the cells."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import Action
from services.consent.store.sql import run


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
    row = {"subject": subject_id, "action": str(action), **cells}
    await run(tx, "append", **row, origins=list(origins))


async def rows_of(
    tx: AsyncConnection, subject_id: UUID, *, after: int, limit: int
) -> list[dict[str, Any]]:
    """Read a subject's rows in the order of the chain."""
    rows = await run(tx, "rows_of", subject=subject_id, after=after, batch=limit)
    return [row._asdict() for row in rows]


async def origins(tx: AsyncConnection, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    """Read stored origins by hash; those past their retention are missing."""
    return {row.hash: row.sealed for row in await run(tx, "origins", hashes=list(hashes))}


async def last_row(tx: AsyncConnection, subject_id: UUID) -> Any:
    """Read `action`, `timestamp` and the sealed `email` of the subject's last row."""
    return (await run(tx, "last_row", subject=subject_id)).one_or_none()


async def head(tx: AsyncConnection) -> Position:
    row = (await run(tx, "head")).one_or_none()
    return Position(*row) if row else START


async def may_be_undone(tx: AsyncConnection) -> bool:
    """Return whether the next primary may lack rows that this server shows."""
    return bool((await run(tx, "may_be_undone")).scalar())


async def positions(tx: AsyncConnection, rows: Iterable[int]) -> list[Position]:
    """Read the stored hashes of these rows, in the order of the chain; some may be missing."""
    return [Position(*row) for row in await run(tx, "positions", numbers=list(rows))]
