"""Erasure in the other services: the order, and its repetition until each has reported back."""

import json
from collections.abc import Container
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.messaging.broker import message
from libs.common.process import logs
from services.consent import messages, metrics
from services.consent.messages import Trace
from services.consent.rules import ALL, HOLDERS, Subject
from services.consent.store import erasures
from services.consent.store.erasures import Order
from services.consent.store.vault import Vault
from services.consent.topology import EVENTS

log = logs.get_logger(__name__)

BATCH = 100


async def order(
    tx: AsyncConnection,
    vault: Vault,
    erasure_id: UUID,
    subject: Subject,
    receipts: Container[str] = (),
) -> None:
    """Order the next service to erase, and keep the order until all have; repeating is harmless.

    Each service has its own routing key, so a message without a queue waits in the outbox instead
    of counting as delivered because another service's queue took it.
    """
    holder = next((name for name in HOLDERS if name not in receipts), None)
    if holder is None:
        return
    sealed = vault.seal_order(erasure_id, json.dumps(subject.body()))
    await erasures.seal_order(tx, erasure_id, sealed)
    body = messages.erased(subject, ALL, datetime.now(UTC), erasure_id)
    await outbox.add(tx, EVENTS.name, f"{messages.ERASED}.{holder}", message(messages.ERASED, body))


async def repeat(
    tx: AsyncConnection, vault: Vault, erasure_id: UUID, trace: Trace | None = None
) -> bool:
    """Repeat the order of an erasure in progress.

    :param trace: what followups has found; it deletes only what is recorded here
    :returns: False when the erasure is no longer in progress
    """
    found = await erasures.lock_order(tx, erasure_id)
    if found is None:
        return False
    subject = _subject(vault, found)
    if trace is not None:
        subject = subject.traced(trace.conversations, trace.phones)
    await order(tx, vault, erasure_id, subject, found.receipts)
    return True


def _subject(vault: Vault, order: Order) -> Subject:
    return Subject.of(json.loads(vault.open_order(order.erasure_id, order.sealed)))


async def follow_up(engine: AsyncEngine, vault: Vault, resend_seconds: float) -> None:
    """Repeat orders without a receipt, and measure the oldest erasure's deadline.

    So an order that was lost (a broker's disk, a restored service) is repeated without asking for
    the address again.
    """
    while True:
        async with engine.begin() as tx:
            orders = await erasures.take_overdue(tx, resend_seconds, BATCH)
            for each in orders:
                await order(tx, vault, each.erasure_id, _subject(vault, each), each.receipts)
                log.warning("erasure.ordered_again", receipts=sorted(each.receipts))
        if len(orders) < BATCH:
            break
    async with engine.connect() as tx:
        count, days, _ = await erasures.open_erasures(tx)
    metrics.ERASURES_OPEN.set(count)
    metrics.ERASURE_DAYS_LEFT.set(days)
