"""Erasure beyond this service: the order, its deadline, and the note that outlives the database."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import logs, outbox
from libs.common.broker import message
from services.consent import messages, metrics
from services.consent.consent import HOLDERS, PURPOSES
from services.consent.store import erasing
from services.consent.topology import EVENTS
from services.consent.vault import Vault

log = logs.get_logger(__name__)

FILE = "erasures.jsonl"
BATCH = 100


def record(person_id: UUID, erasure_id: UUID, address_hash: bytes, at: datetime) -> dict[str, Any]:
    """Note who was erased, for `replay`: a random id and the suppression list's hash."""
    return {
        "person": str(person_id),
        "erasure": str(erasure_id),
        "address_hash": address_hash.hex(),
        "at": at.isoformat(),
    }


async def order(
    tx: AsyncConnection, address: str, erasure_id: UUID, holders: Iterable[str]
) -> None:
    """Tell these holders to erase; repeating it is harmless.

    A key for each: a message that finds no queue waits in the outbox, and does not count as
    delivered because another service's queue took it.
    """
    body = messages.erased(address, PURPOSES, datetime.now(UTC), erasure_id)
    await outbox.add_all(
        tx,
        [
            (EVENTS.name, f"{messages.ERASED}.{holder}", message(messages.ERASED, body))
            for holder in holders
        ],
    )


async def follow_up(engine: AsyncEngine, vault: Vault, resend_seconds: float) -> None:
    """Order again what was not reported back, and look at the clock of the oldest erasure.

    However an order was lost (a broker's disk, a restored service), it comes again; nobody has to
    know the address for that.
    """
    while True:
        async with engine.begin() as tx:
            orders = await erasing.unanswered(tx, resend_seconds, BATCH)
            for each in orders:
                missing = [name for name in HOLDERS if name not in each.receipts]
                address = vault.open_address(each.erasure_id, each.sealed)
                await order(tx, address, each.erasure_id, missing)
                log.warning("erasure.ordered_again", holders=missing)
        if len(orders) < BATCH:
            break
    async with engine.connect() as tx:
        count, days = await erasing.open_erasures(tx)
    metrics.ERASURES_OPEN.set(count)
    metrics.ERASURE_DAYS_LEFT.set(days)
