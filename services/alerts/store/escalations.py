"""What a person is to be told, and what has been told."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.alert import Reason
from services.alerts.messages import ESCALATION
from services.alerts.store import troubles
from services.alerts.store.steps import Ended
from services.alerts.store.tables import OPEN, escalation

_timestamptz = sa.DateTime(timezone=True)


async def escalate(tx: AsyncConnection, ended: Ended, reason: Reason) -> None:
    """Put a failure on the list of what a person is to be told."""
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
class Untold:
    """What a person is to be told of one target, in sum."""

    count: int
    reasons: dict[str, int]
    first_at: datetime
    first_error: str
    last_at: datetime
    last_error: str


_TELL_OF = (
    sa.text("""
    WITH told AS (
        UPDATE escalation SET digest = :digest WHERE target = :target AND digest IS NULL
        RETURNING id, reason, created_at, coalesce(error, reason) AS error
    )
    SELECT
        count(*) AS count,
        (SELECT jsonb_object_agg(reason, number) FROM
            (SELECT reason, count(*) AS number FROM told GROUP BY reason) r) AS reasons,
        min(created_at) AS first_at, (array_agg(error ORDER BY id))[1] AS first_error,
        max(created_at) AS last_at, (array_agg(error ORDER BY id DESC))[1] AS last_error
    FROM told
""")
    .bindparams(sa.bindparam("digest", type_=sa.Uuid), sa.bindparam("target", type_=sa.Text))
    .columns(
        count=sa.BigInteger,
        reasons=JSONB,
        first_at=_timestamptz,
        first_error=sa.Text,
        last_at=_timestamptz,
        last_error=sa.Text,
    )
)


_TARGETS_UNTOLD = (
    sa.text(f"""
    SELECT target FROM escalation WHERE digest IS NULL
    GROUP BY target HAVING bool_and({troubles.RESTED})
""")
    .bindparams(sa.bindparam("pause", type_=sa.Float))
    .columns(target=sa.Text)
)


async def targets_untold(tx: AsyncConnection, pause: float) -> list[str]:
    """Return of which targets a person is to be told now.

    :param pause: seconds after a mail that failed; twice as long after each further one
    """
    return list((await tx.execute(_TARGETS_UNTOLD, {"pause": pause})).scalars())


# What is in a mail that has not left is not told either.
_UNTOLD_SECONDS = sa.text(f"""
    SELECT CAST(coalesce(extract(epoch FROM now() - least(
        (SELECT min(created_at) FROM escalation WHERE digest IS NULL),
        (SELECT min(escalation.created_at)
         FROM delivery JOIN escalation ON escalation.digest = delivery.alert_id
         WHERE {OPEN} AND delivery.event_type = '{ESCALATION}')
    )), 0) AS float) AS seconds
""").columns(seconds=sa.Float)


async def untold_seconds(tx: AsyncConnection) -> float:
    """Return the age of the oldest failure that no mail has told a person of; 0 without one."""
    return float((await tx.execute(_UNTOLD_SECONDS)).scalar_one())


async def tell_of(tx: AsyncConnection, target: str, digest: UUID) -> Untold | None:
    """Mark what was not told yet as told by this digest, and sum it up; None when there is none."""
    row = (await tx.execute(_TELL_OF, {"target": target, "digest": digest})).mappings().one()
    return Untold(**row) if row["count"] else None


async def untell(tx: AsyncConnection, digest: UUID) -> None:
    """Nobody got this digest: the next one tells what it told, after a pause."""
    await troubles.untell(tx, digest)
    await tx.execute(
        sa.update(escalation)
        .where(escalation.c.digest == digest)
        .values(digest=None, untold_at=sa.func.now(), untold=escalation.c.untold + 1)
    )
