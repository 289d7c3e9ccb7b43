"""The states of consents."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import ConsentState, State
from services.consent.store.sql import run


async def states_of_all(
    tx: AsyncConnection, lookup_hashes: Sequence[bytes]
) -> list[dict[str, State]]:
    """Read the states by purpose of each hash; an unknown one has none, at the same cost."""
    found: dict[bytes, dict[str, State]] = {}
    for row in await run(tx, "states_of_all", hashes=list(set(lookup_hashes))):
        found.setdefault(row.lookup_hash, {})[row.purpose] = State(row.state)
    return [found.get(each, {}) for each in lookup_hashes]


async def states(tx: AsyncConnection, lookup_hash: bytes) -> dict[str, State]:
    (found,) = await states_of_all(tx, [lookup_hash])
    return found


async def read(tx: AsyncConnection, subject_id: UUID, purposes: Iterable[str]) -> ConsentState:
    """Read versions and permits; an earlier statement of the caller has locked the subject's row.

    In one statement with the lock, the count would be as old as the wait for the lock.
    """
    rows = await run(tx, "consent", subject=subject_id, purposes=list(purposes))
    return ConsentState(
        versions={row.purpose: row.version for row in rows},
        unreturned=rows[0].unreturned,
        withdrawn_for=min(row.age for row in rows),
    )
