"""Erasures: asked for, ordered, carried out by each service, and known again after a restore."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.consent import ErasureStatus
from services.consent.store.people import forget
from services.consent.store.tables import erasure, erasure_receipt, person
from services.consent.vault import WrappedKey


@dataclass(frozen=True, slots=True)
class Erasure:
    id: UUID
    status: ErasureStatus
    requested_at: datetime
    confirmed_at: datetime | None
    finished_at: datetime | None
    due_at: datetime
    """By then it must be carried out (Art. 12(3) GDPR): a month after the request."""
    receipts: frozenset[str]


_REQUEST_ERASURE = (
    sa.text("""
    INSERT INTO erasure AS mine (id, person_id, address_hash, status)
    VALUES (:id, :person, :hash, 'awaiting_confirmation')
    ON CONFLICT (person_id) DO UPDATE SET requested_at = CASE
        WHEN mine.requested_at < now() - interval '7 days' THEN now() ELSE mine.requested_at END
    RETURNING id
""")
    .bindparams(
        sa.bindparam("id", type_=sa.Uuid),
        sa.bindparam("person", type_=sa.Uuid),
        sa.bindparam("hash", type_=sa.LargeBinary),
    )
    .columns(id=sa.Uuid)
)


async def request_erasure(tx: AsyncConnection, person_id: UUID, address_hash: bytes) -> UUID:
    """Note that erasure was asked for; asking twice is asking once.

    One that was never confirmed lapses after a week, the longest that a link may be good for: the
    month in which it must be carried out then runs from the newer request.

    :param address_hash: the suppression list's, by which the request is found once it is granted
    """
    values = {"id": uuid4(), "person": person_id, "hash": address_hash}
    erasure_id: UUID = (await tx.execute(_REQUEST_ERASURE, values)).scalar_one()
    return erasure_id


async def awaits_confirmation(tx: AsyncConnection, erasure_id: UUID, person_id: UUID) -> bool:
    """Say whether this request is this person's, and still open."""
    found = await tx.scalar(sa.select(erasure.c.person_id).where(erasure.c.id == erasure_id))
    return bool(found == person_id)


_DUE = (erasure.c.requested_at + sa.text("interval '1 month'")).label("due_at")


async def find_erasure(tx: AsyncConnection, address_hash: bytes) -> Erasure | None:
    """Return an address's erasure: one under way, else the latest that was asked for."""
    found = await tx.execute(
        sa.select(erasure, _DUE)
        .where(erasure.c.address_hash == address_hash)
        .order_by(
            (erasure.c.status == ErasureStatus.IN_PROGRESS).desc(), erasure.c.requested_at.desc()
        )
        .limit(1)
    )
    row = found.one_or_none()
    if row is None:
        return None
    receipts = await tx.execute(
        sa.select(erasure_receipt.c.service).where(erasure_receipt.c.erasure_id == row.id)
    )
    return Erasure(
        row.id,
        ErasureStatus(row.status),
        row.requested_at,
        row.confirmed_at,
        row.finished_at,
        row.due_at,
        frozenset(receipts.scalars()),
    )


async def destroy(tx: AsyncConnection, person_id: UUID) -> UUID:
    """Forget a person whose erasure was asked for.

    :returns: the id of that erasure
    """
    await forget(tx, person_id)
    confirmed = await tx.execute(
        sa.update(erasure)
        .where(erasure.c.person_id == person_id)
        .values(status=ErasureStatus.IN_PROGRESS, confirmed_at=sa.func.now(), person_id=sa.null())
        .returning(erasure.c.id)
    )
    erasure_id: UUID = confirmed.scalar_one()
    return erasure_id


async def erased_elsewhere(
    tx: AsyncConnection,
    person_id: UUID,
    erasure_id: UUID,
    address_hash: bytes,
    at: datetime,
    *,
    under_way: bool,
) -> None:
    """Note an erasure that this database has not seen, as it would stand here if it had.

    :param under_way: another service holds the address, and has to erase it
    """
    await tx.execute(pg.insert(person).values(id=person_id, erased_at=at).on_conflict_do_nothing())
    await tx.execute(
        pg.insert(erasure)
        .values(
            id=erasure_id,
            address_hash=address_hash,
            status=ErasureStatus.IN_PROGRESS if under_way else ErasureStatus.DONE,
            requested_at=at,
            confirmed_at=at,
            finished_at=None if under_way else sa.func.now(),
        )
        .on_conflict_do_nothing()
    )


async def receive(
    tx: AsyncConnection, erasure_id: UUID, service: str, holders: Iterable[str]
) -> bool:
    """Note that a service has erased what it held.

    :returns: whether that was the last one
    """
    # Two receipts at once would each not see the other's.
    locked = await tx.execute(
        sa.select(erasure.c.id).where(erasure.c.id == erasure_id).with_for_update()
    )
    if locked.one_or_none() is None:
        return False
    await tx.execute(
        pg.insert(erasure_receipt)
        .values(erasure_id=erasure_id, service=service)
        .on_conflict_do_nothing()
    )
    received = await tx.execute(
        sa.select(erasure_receipt.c.service).where(erasure_receipt.c.erasure_id == erasure_id)
    )
    if not set(holders) <= set(received.scalars()):
        return False
    done = await tx.execute(
        sa.update(erasure)
        .where(erasure.c.id == erasure_id, erasure.c.status == ErasureStatus.IN_PROGRESS)
        .values(
            status=ErasureStatus.DONE,
            finished_at=sa.func.now(),
            master_key_id=sa.null(),
            sealed_address=sa.null(),
        )
    )
    return done.rowcount == 1


async def erased_since(tx: AsyncConnection, address_hash: bytes, at: datetime) -> bool:
    """Say whether this address was erased at that time or later."""
    erased = sa.exists().where(erasure.c.address_hash == address_hash, erasure.c.confirmed_at >= at)
    return bool(await tx.scalar(sa.select(erased)))


async def seal_order(tx: AsyncConnection, erasure_id: UUID, sealed: WrappedKey) -> None:
    """Keep the address of an erasure under way, to order it again where no receipt comes."""
    await tx.execute(
        sa.update(erasure)
        .where(erasure.c.id == erasure_id)
        .values(
            master_key_id=sealed.master_key_id,
            sealed_address=sealed.wrapped,
            ordered_at=sa.func.now(),
        )
    )


@dataclass(frozen=True, slots=True)
class Order:
    erasure_id: UUID
    sealed: WrappedKey
    receipts: frozenset[str]


_UNANSWERED = sa.text("""
    UPDATE erasure SET ordered_at = now() WHERE id IN (
        SELECT id FROM erasure
        WHERE status = 'in_progress' AND sealed_address IS NOT NULL
            AND ordered_at <= now() - make_interval(secs => :seconds)
        ORDER BY requested_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    RETURNING id, master_key_id, sealed_address, ARRAY(
        SELECT service FROM erasure_receipt WHERE erasure_id = erasure.id) AS receipts
""").columns(id=sa.Uuid, master_key_id=sa.Text, sealed_address=sa.LargeBinary)


async def unanswered(tx: AsyncConnection, seconds: float, batch: int) -> list[Order]:
    """Take the orders that were given so long ago and are not carried out by everybody."""
    rows = await tx.execute(_UNANSWERED, {"seconds": seconds, "batch": batch})
    return [
        Order(row.id, WrappedKey(row.master_key_id, row.sealed_address), frozenset(row.receipts))
        for row in rows
    ]


async def sealed_before(tx: AsyncConnection, current: str) -> list[Order]:
    """Lock orders that are sealed by another master key than this."""
    rows = await tx.execute(
        sa.select(erasure.c.id, erasure.c.master_key_id, erasure.c.sealed_address)
        .where(erasure.c.status == ErasureStatus.IN_PROGRESS, erasure.c.master_key_id != current)
        .with_for_update()
    )
    return [
        Order(row.id, WrappedKey(row.master_key_id, row.sealed_address), frozenset())
        for row in rows
    ]


async def reseal(tx: AsyncConnection, erasure_id: UUID, sealed: WrappedKey) -> None:
    await tx.execute(
        sa.update(erasure)
        .where(erasure.c.id == erasure_id)
        .values(master_key_id=sealed.master_key_id, sealed_address=sealed.wrapped)
    )


async def open_erasures(tx: AsyncConnection) -> tuple[int, float]:
    """Count the erasures under way.

    :returns: also how many days the first that is due has left; infinite when there is none
    """
    counted = await tx.execute(
        sa.select(
            sa.func.count(),
            sa.cast(sa.func.extract("epoch", sa.func.min(_DUE) - sa.func.now()), sa.Float),
        ).where(erasure.c.status == ErasureStatus.IN_PROGRESS)
    )
    count, seconds = counted.one()
    return count, math.inf if seconds is None else seconds / 86_400
