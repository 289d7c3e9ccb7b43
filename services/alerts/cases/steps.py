"""Hands out the messages of cases; the ledger row of each is written with it."""

from collections.abc import Container, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts import messages
from services.alerts.intake import accept_rows
from services.alerts.rules.delivery import Reason
from services.alerts.store.cases import cases
from services.alerts.store.cases.cases import Ticked
from services.alerts.store.ledger.intake import NewRow


async def tick(
    tx: AsyncConnection, ticked: Sequence[Ticked], now: datetime, targets: Container[str]
) -> None:
    """Change these locked cases, and hand out their messages."""
    await cases.tick(tx, ticked)
    rows = [
        NewRow(
            alert_id=each.alert_id,
            target=ask.to,
            event_type=messages.CASE_STEP,
            severity=each.case.severity,
            source="alerts",
            payload={"case_id": str(each.case.alert_id)},
            dedup_key=None,
            request_id=each.case.request_id,
            accepted_at=now,
            subjects=tuple(each.case.named),
            # The target may no longer be configured.
            failed=None if ask.to in targets else Reason.UNROUTED,
        )
        for each in ticked
        if each.alert_id is not None and (ask := each.moved.handed_out) is not None
    ]
    await accept_rows(tx, rows)
