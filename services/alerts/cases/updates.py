"""Orders updates: a message to each place that does not show its case's current state.

An update is a ledger row of its own, written at its claim. A place gets its next one only when
that has ended, so no two race. If one is lost anywhere, the place is still out of date.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts import messages
from services.alerts.intake import accept_rows
from services.alerts.rules import case
from services.alerts.rules.case import Cancelled, State
from services.alerts.rules.delivery import Reason
from services.alerts.store.cases import cases, places
from services.alerts.store.ledger.intake import NewRow


@dataclass(frozen=True, eq=False)
class Updates:
    engine: AsyncEngine
    targets: frozenset[str]

    async def run(self) -> None:
        """Order an update for every place that is due; replicas share them."""
        while await self._batch() == places.DUE_BATCH:
            pass

    async def _batch(self) -> int:
        async with self.engine.begin() as tx:
            due = await places.due(tx)
            if not due:
                return 0
            known = [row for row in due if _is_known(row)]
            await places.known(tx, known)
            now = await cases.now(tx)
            rows = [self._row(row, now) for row in due if row not in known]
            if rows:
                await accept_rows(tx, rows)
                await places.ordered(tx, [row for row in due if row not in known])
        return len(due)

    def _row(self, row: Any, now: Any) -> NewRow:
        return NewRow(
            alert_id=case.update_id(row.alert_id, row.target, row.want),
            target=row.target,
            event_type=messages.CASE_UPDATE,
            severity="info",
            source="alerts",
            payload={"place": str(row.alert_id)},
            dedup_key=None,
            request_id=row.request_id,
            accepted_at=now,
            failed=None if row.target in self.targets else Reason.UNROUTED,
        )


def _is_known(row: Any) -> bool:
    """Return whether the place's person gave the answer, and only a new message could say it.

    A message that can be changed is: others in its channel see it too. What has happened since the
    answer, such as that the case resolved, is news to that person as well.
    """
    if row.receipt is not None or row.outcome == Cancelled.RESOLVED:
        return False
    by_answer = row.state in {State.OPEN, State.ANSWERED}
    return by_answer and row.person is not None and row.person == row.answered_by
