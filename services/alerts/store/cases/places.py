"""Where alerts and steps were shown, and the updates that show a case's state there.

A place has `want`, which grows with each change of its case, and `shown`, the `want` that was read
when its last message was written. While they differ, an update is due.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.rules.case import update_id
from services.alerts.store.sql import statements
from services.alerts.store.tables import case_place

# One that an attempt has touched, while none is in flight there: what is in flight is written from
# the case as it stands, or shows what it was before. A delivery that was purged has ended.
DUE: Final = """
    want > coalesce(shown, 0) AND want > ordered
    AND NOT EXISTS (
        SELECT FROM delivery
        WHERE (delivery.alert_id, delivery.target) = (case_place.alert_id, case_place.target)
            AND (state = 'sending' OR attempt = 0))
    AND NOT EXISTS (
        SELECT FROM delivery WHERE delivery.alert_id = update_id
            AND state IN ('pending', 'claimed', 'sending'))
"""


SQL: Final = statements(__file__, due=DUE)
DUE_BATCH: Final = 50


async def due(tx: AsyncConnection) -> list[Any]:
    """Lock some places that are due for an update, skipping locked ones."""
    return list(await tx.execute(SQL["due"], {"batch": DUE_BATCH}))


async def known(tx: AsyncConnection, rows: Sequence[Any]) -> None:
    """Count these locked places as up to date: their person already knows."""
    for row in rows:
        await tx.execute(_of(row).values(shown=row.want))


async def ordered(tx: AsyncConnection, rows: Sequence[Any]) -> None:
    """Record that an update of each of these locked places was ordered."""
    for row in rows:
        values = {"ordered": row.want, "update_id": update_id(row.alert_id, row.target, row.want)}
        await tx.execute(_of(row).values(**values))


def _of(row: Any) -> sa.Update:
    return sa.update(case_place).where(
        case_place.c.alert_id == row.alert_id, case_place.c.target == row.target
    )


async def read(tx: AsyncConnection, shown_at: UUID, target: str) -> Any | None:
    """Return what a step or an update is written from: its case, place and step, in one snapshot.

    :param shown_at: the alert id of the place, which is the step's own
    :returns: None when the case was purged
    """
    found = await tx.execute(SQL["read"], {"alert_id": shown_at, "target": target})
    return found.first()


async def shown(
    tx: AsyncConnection,
    shown_at: UUID,
    target: str,
    want: int,
    receipt: Mapping[str, str] | None,
) -> None:
    """Record what a place shows, in the transaction that records the delivery there.

    An alert that is retried after its place was updated asks again below that update. So the
    place is due again.

    :param want: as it was when the message was written
    :param receipt: identifies the message for changes
    """
    values = {"alert_id": shown_at, "target": target, "want": want}
    await tx.execute(SQL["shown"], {**values, "receipt": receipt and dict(receipt)})


async def rearm(
    tx: AsyncConnection, shown_at: UUID, target: str, receipt: Mapping[str, str] | None
) -> None:
    """Make due a place that a worker may have changed after another took over.

    What it sent may be older than what was sent since. A counter, as a flag would be wiped by the
    record of the other worker.

    :param receipt: of what it sent, which is what the update has to change
    """
    values = {"alert_id": shown_at, "target": target, "receipt": receipt and dict(receipt)}
    await tx.execute(SQL["rearm"], values)
