"""Subscriptions, their secrets, and the events that are kept for them."""

from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.rules.delivery import Reason, State
from services.alerts.store.ledger import upkeep
from services.alerts.store.tables import OPEN

BATCH: Final = 500
_PREFIX: Final = "subscription."

run = Queries(__file__, json=("data", "replay"), open=OPEN)


def target_of(subscription_id: UUID) -> str:
    return f"{_PREFIX}{subscription_id}"


def is_one(target: str) -> bool:
    """Return whether a target is a subscription; no target of alerts.toml has a dot."""
    return target.startswith(_PREFIX)


async def end_by(tx: AsyncConnection, target: str) -> None:
    """Pause the subscription whose receiver wants no more."""
    await run(tx, "pause", id=UUID(target.removeprefix(_PREFIX)), paused="gone")


async def stop(tx: AsyncConnection, subscription_id: UUID, operator: str | None) -> None:
    """Delete it, and end what still waits for it; what is being sent ends by itself."""
    target = target_of(subscription_id)
    while rows := await upkeep.run(tx, "too_old", target=target, seconds=0, limit=BATCH):
        why = "the subscription was deleted"
        await upkeep.end(tx, rows, State.DISCARDED, Reason.MANUAL, why, operator)
    await run(tx, "remove", id=subscription_id)
    await run(tx, "forget_target", target=target)
