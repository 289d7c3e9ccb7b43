"""Where alerts and steps were shown, and the updates that show a case's state there.

A place has `want`, which grows with each change of its case, and `shown`, the `want` that was read
when its last message was written. While they differ, an update is due.
"""

from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.queries import Queries
from services.alerts.store.tables import alert_case, case_place, names

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


run = Queries(
    __file__, json=("receipt",),
    due=DUE, columns=names(case_place), case=names(alert_case),
)  # fmt: skip
DUE_BATCH: Final = 50


async def read(tx: AsyncConnection, shown_at: UUID, target: str) -> Any | None:
    """Return what a step or an update is written from: its case, place and step, in one snapshot.

    :param shown_at: the alert id of the place, which is the step's own
    :returns: None when the case was purged
    """
    return (await run(tx, "read", alert_id=shown_at, target=target)).one_or_none()
