"""Consents, permits and the suppression list."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import ConsentState, Permit, State
from services.consent.store.sql import run


async def state_of(
    tx: AsyncConnection, subject_id: UUID, purpose: str
) -> tuple[State | None, bool]:
    """Read a state; also whether the person wants less than all, which `deferred` decides."""
    state, asks_less = (await run(tx, "state_of", subject=subject_id, purpose=purpose)).one()
    return state and State(state), asks_less


async def deferred(
    tx: AsyncConnection, subject_id: UUID, purpose: str, message: UUID
) -> int | None:
    """Count this mail under the person's pause and cap.

    :returns: None, or in how many seconds it may be sent instead
    """
    asked = {"subject": subject_id, "purpose": purpose}
    if (await run(tx, "within_preference", **asked, message=message)).rowcount:
        return None
    seconds: int | None = (await run(tx, "deferred", **asked)).scalar()
    return seconds


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


async def withdraw(
    tx: AsyncConnection, subject_id: UUID, purposes: Iterable[str], at: datetime | None = None
) -> None:
    """:param at: the time of the withdrawal, if it was before now"""
    await run(tx, "withdraw", subject=subject_id, purposes=list(purposes), at=at)


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


async def open_permit(
    tx: AsyncConnection, subject_id: UUID, message: UUID, attempt: int, purpose: str
) -> Permit:
    """Record a permit for this attempt unless there is one, and return the one there is."""
    values = {"message": message, "attempt": attempt, "subject": subject_id}
    if (await run(tx, "open_permit", **values, purpose=purpose)).rowcount:
        return Permit(age=0, returned=False)
    # A separate statement, so that it sees a duplicate whose commit the insert has waited for.
    row = (await run(tx, "permit", **values)).one()
    return Permit(age=row.age or 0.0, returned=row.closed)


async def return_permit(tx: AsyncConnection, message: UUID, attempt: int) -> None:
    await run(tx, "return_permit", message=message, attempt=attempt)


async def suppress(
    tx: AsyncConnection,
    subject_id: UUID,
    suppression_hash: bytes,
    purposes: Iterable[str],
    days: int,
    *,
    never_ask: bool = False,
) -> None:
    """Suppress an address, and void its links that await confirmation.

    :param never_ask: never mail a link to it again
    """
    await run(
        tx,
        "suppress",
        subject=subject_id,
        hash=suppression_hash,
        purposes=list(purposes),
        days=days,
        never_ask=never_ask,
    )


async def restrictions(
    tx: AsyncConnection, subject_id: UUID, suppression_hash: bytes, purpose: str
) -> Any:
    """Read what prevents a new agreement: `suppressed`, `never_ask`, `withdrawn_at`, and `granted`:
    whether there is an earlier one that counts.
    """
    found = await run(
        tx, "restrictions", subject=subject_id, hash=suppression_hash, purpose=purpose
    )
    return found.one()
