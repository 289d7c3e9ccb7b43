"""Failures that operators must be notified of, and which of them a mail has reported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.messages import ESCALATION
from services.alerts.rules.delivery import Reason
from services.alerts.store import incidents
from services.alerts.store.ledger.transitions import Ended
from services.alerts.store.sql import statements
from services.alerts.store.tables import OPEN, escalation

SQL: Final = statements(__file__, pause_over=incidents.PAUSE_OVER, open=OPEN, escalation=ESCALATION)


async def escalate(tx: AsyncConnection, ended: Ended, reason: Reason) -> None:
    """Add a failure to those that operators must be notified of."""
    await tx.execute(
        sa.insert(escalation).values(
            alert_id=ended.alert_id,
            target=ended.target,
            event_type=ended.event_type,
            reason=reason,
            error=ended.error,
        )
    )


@dataclass(frozen=True)
class Unsent:
    """The failures of one target that no mail has reported, in sum."""

    count: int
    reasons: dict[str, int]
    first_at: datetime
    first_error: str
    last_at: datetime
    last_error: str
    alerts: Sequence[Mapping[str, Any]] = ()
    """The first ones: id, event_type, and how the text begins (`said`)."""


async def targets_due(tx: AsyncConnection, pause: float) -> list[str]:
    """Return the targets whose failures are due to be reported.

    :param pause: seconds after a mail that failed; doubled after each further one
    """
    return list((await tx.execute(SQL["targets"], {"pause": pause})).scalars())


async def unsent_seconds(tx: AsyncConnection) -> float:
    """Return the age of the oldest failure that no mail has reported; 0 without one."""
    return float((await tx.execute(SQL["unsent_seconds"])).scalar_one())


async def take(tx: AsyncConnection, target: str, digest: UUID) -> Unsent | None:
    """Mark the unsent failures as reported by this digest and sum them up; None without any."""
    row = (await tx.execute(SQL["take"], {"target": target, "digest": digest})).mappings().one()
    return Unsent(**row) if row["count"] else None


async def mark_unsent(tx: AsyncConnection, digest: UUID) -> None:
    """Make all that this failed digest reported due again, after a pause."""
    await incidents.mark_unsent(tx, digest)
    await tx.execute(SQL["mark_unsent"], {"digest": digest})
