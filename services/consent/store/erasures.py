"""Erasures: requested, ordered from each service, and replayed after a restore."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import ErasureStatus
from services.consent.store.data_subjects import forget
from services.consent.store.sql import sql
from services.consent.store.tables import data_subject, erasure, erasure_receipt
from services.consent.store.vault import WrappedKey


@dataclass(frozen=True, slots=True)
class Erasure:
    id: UUID
    status: ErasureStatus
    requested_at: datetime
    confirmed_at: datetime | None
    finished_at: datetime | None
    due_at: datetime
    """When it must be done (Art. 12(3) GDPR): a month after the request."""
    receipts: frozenset[str]


_REQUEST = sql(
    """
    INSERT INTO erasure AS mine (id, subject_id, suppression_hash, status)
    VALUES (:id, :subject, :hash, 'awaiting_confirmation')
    ON CONFLICT (subject_id) DO UPDATE SET requested_at = CASE
        WHEN mine.requested_at < now() - interval '7 days' THEN now() ELSE mine.requested_at END
    RETURNING id
""",
    id=sa.Uuid,
)


async def request_erasure(tx: AsyncConnection, subject_id: UUID, suppression_hash: bytes) -> UUID:
    """Record a request for erasure; idempotent.

    A request that was never confirmed lapses after a week, the longest validity of a link: the
    month in which it must be done then starts with the newer request.

    :param suppression_hash: finds the request once the subject is erased
    """
    values = {"id": uuid4(), "subject": subject_id, "hash": suppression_hash}
    erasure_id: UUID = (await _REQUEST.execute(tx, values)).scalar_one()
    return erasure_id


async def awaits_confirmation(tx: AsyncConnection, erasure_id: UUID, subject_id: UUID) -> bool:
    """Return whether this request belongs to this subject and is still open."""
    found = await tx.scalar(sa.select(erasure.c.subject_id).where(erasure.c.id == erasure_id))
    return bool(found == subject_id)


_DUE = (erasure.c.requested_at + sa.text("interval '1 month'")).label("due_at")
_RECEIPTS = sa.func.array(
    sa.select(erasure_receipt.c.service)
    .where(erasure_receipt.c.erasure_id == erasure.c.id)
    .correlate(erasure)
    .scalar_subquery()
).label("receipts")


async def find_erasure(tx: AsyncConnection, suppression_hash: bytes) -> Erasure | None:
    """Return an address's erasure: the one in progress, else the one requested last."""
    found = await tx.execute(
        sa.select(erasure, _DUE, _RECEIPTS)
        .where(erasure.c.suppression_hash == suppression_hash)
        .order_by(
            (erasure.c.status == ErasureStatus.IN_PROGRESS).desc(), erasure.c.requested_at.desc()
        )
        .limit(1)
    )
    row = found.one_or_none()
    if row is None:
        return None
    return Erasure(
        row.id,
        ErasureStatus(row.status),
        row.requested_at,
        row.confirmed_at,
        row.finished_at,
        row.due_at,
        frozenset(row.receipts),
    )


async def destroy(tx: AsyncConnection, subject_id: UUID) -> UUID:
    """Erase a subject whose erasure was requested.

    :returns: the id of that erasure
    """
    await forget(tx, subject_id)
    confirmed = await tx.execute(
        sa.update(erasure)
        .where(erasure.c.subject_id == subject_id)
        .values(status=ErasureStatus.IN_PROGRESS, confirmed_at=sa.func.now(), subject_id=sa.null())
        .returning(erasure.c.id)
    )
    erasure_id: UUID = confirmed.scalar_one()
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
    await tx.execute(
        pg.insert(data_subject).values(id=subject_id, erased_at=at).on_conflict_do_nothing()
    )
    await tx.execute(
        pg.insert(erasure)
        .values(
            id=erasure_id,
            suppression_hash=suppression_hash,
            status=ErasureStatus.IN_PROGRESS if in_progress else ErasureStatus.DONE,
            requested_at=at,
            confirmed_at=at,
            finished_at=None if in_progress else sa.func.now(),
        )
        .on_conflict_do_nothing()
    )


async def receive(
    tx: AsyncConnection, erasure_id: UUID, service: str, holders: Sequence[str]
) -> bool:
    """Record a service's receipt; out of order it is ignored (protocol C).

    :returns: whether that was the last one
    """
    # Without the lock, two concurrent receipts would not see each other.
    locked = await tx.execute(
        sa.select(erasure.c.id).where(erasure.c.id == erasure_id).with_for_update()
    )
    if locked.one_or_none() is None:
        return False
    received = await tx.scalars(
        sa.select(erasure_receipt.c.service).where(erasure_receipt.c.erasure_id == erasure_id)
    )
    if not set(holders[: holders.index(service)]) <= set(received):
        return False
    await tx.execute(
        pg.insert(erasure_receipt)
        .values(erasure_id=erasure_id, service=service)
        .on_conflict_do_nothing()
    )
    if service != holders[-1]:
        return False
    done = await tx.execute(
        sa.update(erasure)
        .where(erasure.c.id == erasure_id, erasure.c.status == ErasureStatus.IN_PROGRESS)
        .values(
            status=ErasureStatus.DONE,
            finished_at=sa.func.now(),
            master_key_id=sa.null(),
            sealed_subject=sa.null(),
        )
    )
    return done.rowcount == 1


async def erased_since(
    tx: AsyncConnection, suppression_hashes: Sequence[bytes], at: datetime | None
) -> set[bytes]:
    """Return those of these that were erased since that time; without a time, ever."""
    erased = sa.select(erasure.c.suppression_hash).where(
        erasure.c.suppression_hash.in_(suppression_hashes),
        erasure.c.confirmed_at.is_not(None) if at is None else erasure.c.confirmed_at >= at,
    )
    return set(map(bytes, await tx.scalars(erased)))


async def seal_order(
    tx: AsyncConnection, erasure_id: UUID, sealed: WrappedKey, *, ordered: bool = True
) -> None:
    """Store the sealed data subject, so that the order can be repeated.

    :param ordered: the order is sent now
    """
    values = {"master_key_id": sealed.master_key_id, "sealed_subject": sealed.wrapped}
    await tx.execute(
        sa.update(erasure)
        .where(erasure.c.id == erasure_id)
        .values(values | ({"ordered_at": sa.func.now()} if ordered else {}))
    )


@dataclass(frozen=True, slots=True)
class Order:
    erasure_id: UUID
    sealed: WrappedKey
    receipts: frozenset[str]


_ORDER = (erasure.c.id, erasure.c.master_key_id, erasure.c.sealed_subject, _RECEIPTS)


def _order(row: Any) -> Order:
    sealed = WrappedKey(row.master_key_id, row.sealed_subject)
    return Order(row.id, sealed, frozenset(row.receipts))


async def take_overdue(tx: AsyncConnection, seconds: float, batch: int) -> list[Order]:
    """Take the orders older than this that still lack a receipt."""
    overdue = (
        sa.select(erasure.c.id)
        .where(
            erasure.c.status == ErasureStatus.IN_PROGRESS,
            erasure.c.sealed_subject.is_not(None),
            erasure.c.ordered_at <= sa.func.now() - timedelta(seconds=seconds),
        )
        .order_by(erasure.c.requested_at)
        .limit(batch)
        .with_for_update(skip_locked=True)
    )
    rows = await tx.execute(
        sa.update(erasure)
        .where(erasure.c.id.in_(overdue))
        .values(ordered_at=sa.func.now())
        .returning(*_ORDER)
    )
    return [_order(row) for row in rows]


async def lock_order(tx: AsyncConnection, erasure_id: UUID) -> Order | None:
    """Return the order of an erasure in progress; None if there is none."""
    row = (
        await tx.execute(
            sa.select(*_ORDER)
            .where(erasure.c.id == erasure_id, erasure.c.sealed_subject.is_not(None))
            .with_for_update(of=erasure)
        )
    ).one_or_none()
    return None if row is None else _order(row)


async def sealed_before(tx: AsyncConnection, current: str) -> list[Order]:
    """Lock orders that are sealed with another master key than this."""
    rows = await tx.execute(
        sa.select(*_ORDER)
        .where(erasure.c.status == ErasureStatus.IN_PROGRESS, erasure.c.master_key_id != current)
        .with_for_update(of=erasure)
    )
    return [_order(row) for row in rows]


async def awaiting(tx: AsyncConnection, limit: int) -> Sequence[Any]:
    """Read `subject_id`, `requested_at` and `due_at` of unconfirmed requests, the oldest first."""
    rows = await tx.execute(
        sa.select(erasure.c.subject_id, erasure.c.requested_at, _DUE)
        .where(erasure.c.status == ErasureStatus.AWAITING_CONFIRMATION)
        .order_by(erasure.c.requested_at)
        .limit(limit)
    )
    return rows.all()


async def dismiss(tx: AsyncConnection, subject_id: UUID) -> bool:
    """Delete the subject's unconfirmed request; return whether there was one."""
    gone = await tx.execute(sa.delete(erasure).where(erasure.c.subject_id == subject_id))
    return bool(gone.rowcount)


async def open_erasures(tx: AsyncConnection) -> tuple[int, float, int]:
    """Count the erasures in progress.

    :returns: also the days until the first one is due (infinite if there is none), and how many
        requests nobody has confirmed
    """
    running = erasure.c.status == ErasureStatus.IN_PROGRESS
    first = sa.func.extract("epoch", sa.func.min(_DUE).filter(running) - sa.func.now())
    waiting = erasure.c.status == ErasureStatus.AWAITING_CONFIRMATION
    counted = sa.select(
        sa.func.count().filter(running), sa.cast(first, sa.Float), sa.func.count().filter(waiting)
    ).where(sa.or_(running, waiting))
    count, seconds, awaiting = (await tx.execute(counted)).one()
    return count, math.inf if seconds is None else seconds / 86_400, awaiting
