"""Failures that operators must be notified of, and which of them a mail has reported."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.messages import ESCALATION
from services.alerts.rules.delivery import Reason
from services.alerts.store import incidents
from services.alerts.store.ledger.transitions import Ended
from services.alerts.store.sql import sql
from services.alerts.store.tables import OPEN, escalation


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


_TAKE = sql("""
    WITH taken AS (
        UPDATE escalation SET digest = :digest WHERE target = :target AND digest IS NULL
        RETURNING id, reason, created_at, coalesce(error, reason) AS error
    )
    SELECT
        count(*) AS count,
        (SELECT jsonb_object_agg(reason, number) FROM
            (SELECT reason, count(*) AS number FROM taken GROUP BY reason) r) AS reasons,
        min(created_at) AS first_at, (array_agg(error ORDER BY id))[1] AS first_error,
        max(created_at) AS last_at, (array_agg(error ORDER BY id DESC))[1] AS last_error
    FROM taken
""")


_TARGETS = sql(f"""
    SELECT target FROM escalation WHERE digest IS NULL
    GROUP BY target HAVING bool_and({incidents.PAUSE_OVER})
""")


async def targets_due(tx: AsyncConnection, pause: float) -> list[str]:
    """Return the targets whose failures are due to be reported.

    :param pause: seconds after a mail that failed; doubled after each further one
    """
    return list((await tx.execute(_TARGETS, {"pause": pause})).scalars())


# The failures in a mail that has not been sent yet are unsent, too.
_UNSENT_SECONDS = sql(f"""
    SELECT CAST(coalesce(extract(epoch FROM now() - least(
        (SELECT min(created_at) FROM escalation WHERE digest IS NULL),
        (SELECT min(escalation.created_at)
         FROM delivery JOIN escalation ON escalation.digest = delivery.alert_id
         WHERE {OPEN} AND delivery.event_type = '{ESCALATION}')
    )), 0) AS float) AS seconds
""")


async def unsent_seconds(tx: AsyncConnection) -> float:
    """Return the age of the oldest failure that no mail has reported; 0 without one."""
    return float((await tx.execute(_UNSENT_SECONDS)).scalar_one())


async def take(tx: AsyncConnection, target: str, digest: UUID) -> Unsent | None:
    """Mark the unsent failures as reported by this digest and sum them up; None without any."""
    row = (await tx.execute(_TAKE, {"target": target, "digest": digest})).mappings().one()
    return Unsent(**row) if row["count"] else None


async def mark_unsent(tx: AsyncConnection, digest: UUID) -> None:
    """Make all that this failed digest reported due again, after a pause."""
    await incidents.mark_unsent(tx, digest)
    await tx.execute(
        sa.update(escalation)
        .where(escalation.c.digest == digest)
        .values(
            digest=None,
            send_failed_at=sa.func.now(),
            send_failures=escalation.c.send_failures + 1,
        )
    )
