"""The ledger row of a message of a case, which is written when it is claimed."""

from collections.abc import Container, Sequence
from datetime import datetime

from services.alerts import messages
from services.alerts.rules.delivery import Reason
from services.alerts.store.cases.cases import Ticked
from services.alerts.store.ledger.intake import NewRow


def new_row(
    ticked: Ticked, now: datetime, targets: Container[str], subjects: Sequence[str]
) -> NewRow:
    """:param subjects: of the case, as text"""
    ask, row = ticked.moved.handed_out, ticked.case
    assert ask is not None  # noqa: S101 - it has an alert id
    assert ticked.alert_id is not None  # noqa: S101
    return NewRow(
        alert_id=ticked.alert_id,
        target=ask.to,
        event_type=messages.CASE_STEP,
        severity=row.severity,
        source="alerts",
        payload={"case_id": str(row.alert_id)},
        dedup_key=None,
        request_id=row.request_id,
        accepted_at=now,
        subjects=tuple(subjects),
        # The target may no longer be configured.
        failed=None if ask.to in targets else Reason.UNROUTED,
    )
