"""Erasures: requested, ordered from each service, and replayed after a restore."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import ErasureStatus
from services.consent.store.data_subjects import forget
from services.consent.store.sql import run
from services.consent.store.vault import WrappedKey


async def request_erasure(tx: AsyncConnection, subject_id: UUID, suppression_hash: bytes) -> UUID:
    """Record a request for erasure; idempotent.

    :param suppression_hash: finds the request once the subject is erased
    """
    new = {"id": uuid4(), "subject": subject_id, "hash": suppression_hash}
    erasure_id: UUID = (await run(tx, "request_erasure", **new)).scalar_one()
    return erasure_id


async def find_erasure(tx: AsyncConnection, suppression_hash: bytes) -> Any:
    """Return an address's erasure: the one in progress, else the one requested last.

    `id`, `status`, `requested_at`, `confirmed_at`, `finished_at`, `receipts`, and `due_at`: when it
    must be done (Art. 12(3) GDPR), a month after the request.
    """
    return (await run(tx, "find_erasure", hash=suppression_hash)).one_or_none()


async def destroy(tx: AsyncConnection, subject_id: UUID) -> UUID:
    """Erase a subject whose erasure was requested.

    :returns: the id of that erasure
    """
    await forget(tx, subject_id)
    erasure_id: UUID = (await run(tx, "confirm_erasure", subject=subject_id)).scalar_one()
    return erasure_id


async def record_missed(
    tx: AsyncConnection,
    subject_id: UUID,
    erasure_id: UUID,
    suppression_hash: bytes | None,
    at: datetime,
    *,
    in_progress: bool,
) -> None:
    """Record an erasure that the restored database has lost.

    :param in_progress: another service has the address and must erase it
    """
    status = str(ErasureStatus.IN_PROGRESS if in_progress else ErasureStatus.DONE)
    erased = {"id": erasure_id, "subject": subject_id, "hash": suppression_hash, "at": at}
    await run(tx, "record_missed", **erased, status=status)


async def receive(
    tx: AsyncConnection, erasure_id: UUID, service: str, holders: Sequence[str]
) -> bool:
    """Record a service's receipt; out of order it is ignored (protocol C).

    :returns: whether that was the last one
    """
    if not await run(tx, "lock_erasure", id=erasure_id):
        return False
    earlier = list(holders[: holders.index(service)])
    await run(tx, "receive", id=erasure_id, service=service, earlier=earlier)
    return (await run(tx, "finish", id=erasure_id, holders=list(holders))).rowcount == 1


async def erased_since(
    tx: AsyncConnection, suppression_hashes: Iterable[bytes], at: datetime | None
) -> set[bytes]:
    """Return which of these were erased since that time; without a time, ever."""
    found = await run(tx, "erased_since", hashes=list(suppression_hashes), at=at)
    return set(found.scalars())


async def seal_order(
    tx: AsyncConnection, erasure_id: UUID, sealed: WrappedKey, *, ordered: bool = True
) -> None:
    """Store the sealed data subject, so that the order can be repeated.

    :param ordered: the order is sent now
    """
    values = {"master": sealed.master_key_id, "key": sealed.wrapped, "ordered": ordered}
    await run(tx, "seal_order", id=erasure_id, **values)


@dataclass(frozen=True, slots=True)
class Order:
    erasure_id: UUID
    sealed: WrappedKey
    receipts: frozenset[str]


def _orders(rows: Iterable[Any]) -> list[Order]:
    return [
        Order(row.id, WrappedKey(row.master_key_id, row.sealed_subject), frozenset(row.receipts))
        for row in rows
    ]


async def take_overdue(tx: AsyncConnection, seconds: float, batch: int) -> list[Order]:
    """Take the orders older than this that still lack a receipt."""
    return _orders(await run(tx, "take_overdue", seconds=float(seconds), batch=batch))


async def lock_order(tx: AsyncConnection, erasure_id: UUID) -> Order | None:
    """Return the order of an erasure in progress; None if there is none."""
    return next(iter(_orders(await run(tx, "lock_order", id=erasure_id))), None)


async def sealed_before(tx: AsyncConnection, current: str) -> list[Order]:
    """Lock orders that are sealed with another master key than this."""
    return _orders(await run(tx, "sealed_before", current=current))


async def open_erasures(tx: AsyncConnection) -> tuple[int, float, int]:
    """Count the erasures in progress.

    :returns: also the days until the first one is due (infinite if there is none), and how many
        requests nobody has confirmed
    """
    count, days, awaiting = (await run(tx, "open_erasures")).one()
    return count, math.inf if days is None else days, awaiting
