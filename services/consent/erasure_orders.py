"""Erasure in the other services: the order, and its repetition until each has reported back."""

import json
import math
from collections.abc import Container
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.messaging.broker import message
from libs.common.process.logs import log
from services.consent import messages, metrics
from services.consent.messages import Trace
from services.consent.rules import ALL, HOLDERS, Subject
from services.consent.store.sql import run
from services.consent.store.vault import Vault, WrappedKey
from services.consent.topology import EVENTS

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
    key = {"master": sealed.master_key_id, "key": sealed.wrapped}
    await run(tx, "seal_order", id=erasure_id, **key, ordered=True)
    body = messages.erased(subject, ALL, datetime.now(UTC), erasure_id)
    await outbox.add(tx, EVENTS.name, f"{messages.ERASED}.{holder}", message(messages.ERASED, body))


async def repeat(
    tx: AsyncConnection, vault: Vault, erasure_id: UUID, trace: Trace | None = None
) -> bool:
    """Repeat the order of an erasure in progress.

    :param trace: what followups has found; it deletes only what is recorded here
    :returns: False when the erasure is no longer in progress
    """
    found = (await run(tx, "lock_order", id=erasure_id)).one_or_none()
    if found is None:
        return False
    subject = _subject(vault, found)
    if trace is not None:
        subject = subject.traced(trace.conversations, trace.phones)
    await order(tx, vault, erasure_id, subject, found.receipts)
    return True


async def receive(tx: AsyncConnection, erasure_id: UUID, service: str) -> bool:
    """Record a service's receipt; return whether that was the last one."""
    if not await run(tx, "lock_erasure", id=erasure_id):
        return False
    holders = list(HOLDERS)
    earlier = holders[: holders.index(service)]
    await run(tx, "receive", id=erasure_id, service=service, earlier=earlier)
    return (await run(tx, "finish", id=erasure_id, holders=holders)).rowcount == 1


def _subject(vault: Vault, order: Any) -> Subject:
    sealed = WrappedKey(order.master_key_id, order.sealed_subject)
    return Subject.of(json.loads(vault.open_order(order.id, sealed)))


async def follow_up(engine: AsyncEngine, vault: Vault, resend_seconds: float) -> None:
    """Repeat orders without a receipt, and measure the oldest erasure's deadline.

    So an order that was lost (a broker's disk, a restored service) is repeated without asking for
    the address again.
    """
    while True:
        async with engine.begin() as tx:
            orders = await run(tx, "take_overdue", seconds=float(resend_seconds), batch=BATCH)
            for each in orders:
                await order(tx, vault, each.id, _subject(vault, each), each.receipts)
                log.warning("erasure.ordered_again", receipts=sorted(each.receipts))
        if len(orders) < BATCH:
            break
    found = (await run.alone(engine, "open_erasures")).one()
    metrics.ERASURES_OPEN.set(found.in_progress)
    metrics.ERASURE_DAYS_LEFT.set(math.inf if found.days_left is None else found.days_left)
