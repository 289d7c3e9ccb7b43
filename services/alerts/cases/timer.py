"""Sends the due steps of cases, ends cases whose chain is over, and reminds forgetful owners.

It also orders the updates of messages that do not show their case as it stands.

The timer is a column of the row, not a message or a task. After a crash before the commit, the next
poll of any replica finds the case unchanged; after it, the outbox has the step's work message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.database.group_commit import halved
from libs.common.process.logs import log
from services.alerts import messages, metrics
from services.alerts.cases import steps
from services.alerts.cases.answers import Answers
from services.alerts.intake import accept_rows
from services.alerts.rules import case
from services.alerts.rules.case import Cancelled, Moved, Rules, State
from services.alerts.rules.delivery import Reason
from services.alerts.store.cases import cases, places
from services.alerts.store.cases.cases import Ticked
from services.alerts.store.ledger.intake import NewRow

POLL_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class Timer:
    engine: AsyncEngine
    rules: Rules
    targets: frozenset[str]

    async def run(self) -> None:
        """Move every case that is due; replicas share them."""
        more = True
        while more:
            ids = (await cases.run.alone(self.engine, "due_ids", batch=cases.DUE_BATCH)).scalars()
            if ids:
                await halved(self._move, ids, self._fail)
            more = len(ids) == cases.DUE_BATCH

    async def _fail(self, case_ids: Sequence[UUID], error: Exception) -> None:
        """Put off a case that cannot be moved; the second time, notify operators."""
        if postgres.is_transient(error):
            raise error
        log.error("case.timer_failed", case_id=str(case_ids[0]), exc_info=error)
        await cases.run.alone(
            self.engine, "failed", case_id=case_ids[0], error=type(error).__name__
        )

    async def _move(self, case_ids: Sequence[UUID]) -> None:
        async with self.engine.begin() as tx:
            due: list[Any] = await cases.run(tx, "due", alert_ids=list(case_ids))
            now = await cases.now(tx)
            forgotten = [row.alert_id for row in due if self._is_forgotten(row, now)]
            due = [row for row in due if row.alert_id not in forgotten]
            ticked = [self._tick(row, now) for row in due]
            await steps.tick(tx, ticked, now, self.targets)
        for case_id in forgotten:  # each in a transaction: a recall locks deliveries in order
            await Answers(self.engine, self.rules).give_back(case_id)
        for each in ticked:
            if each.moved.handed_out and each.moved.state is State.ANSWERED:
                metrics.CASE_FORGOTTEN.labels("reminded").inc()
            elif each.moved.handed_out is not None:
                metrics.CASE_STEPS.labels(each.moved.handed_out.to).inc()
            elif each.moved.state is State.UNANSWERED:
                log.warning("case.unanswered", case_id=str(each.case.alert_id))

    def _is_forgotten(self, row: Any, now: datetime) -> bool:
        """Return whether to give a case back; outside its hours, and without a policy, it waits."""
        return row.reminded and self._moved(row, now).reminded

    def _tick(self, row: Any, now: datetime) -> Ticked:
        moved = self._moved(row, now)
        if moved.handed_out is None:
            return Ticked(row, moved)
        return Ticked.of(row, moved, self.rules.whom(moved.handed_out, now))

    def _moved(self, row: Any, now: datetime) -> Moved:
        chain, hours = case.chain_of(row.chain), self.rules.hours_of(row.hours)
        quiet = partial(self.rules.quiet, severity=row.severity, now=now)
        if row.state == State.OPEN:
            return case.tick(chain, row.step, hours, now, quiet)
        policy = self.rules.policies.get(row.event_type)
        reminder = self.rules.reminder(chain, row.owner)
        done_within = None if policy is None else policy.done_within
        return case.remind(
            row.step, reminder, done_within, hours, now, wished=row.wished, quiet=quiet(reminder)
        )


@dataclass(frozen=True, eq=False)
class Updates:
    """Orders updates: a message to each place that does not show its case's current state.

    An update is a ledger row of its own, written at its claim. A place gets its next one only when
    that has ended, so no two race. If one is lost anywhere, the place is still out of date.
    """

    engine: AsyncEngine
    targets: frozenset[str]

    async def run(self) -> None:
        """Order an update for every place that is due; replicas share them."""
        while await self._batch() == places.DUE_BATCH:
            pass

    async def _batch(self) -> int:
        async with self.engine.begin() as tx:
            due = await places.run(tx, "due", batch=places.DUE_BATCH)
            if not due:
                return 0
            now = await cases.now(tx)
            rows = [None if _is_known(row) else self._row(row, now) for row in due]
            await accept_rows(tx, [row for row in rows if row is not None])
            await places.run(
                tx, "ordered", ids=[row.alert_id for row in due],
                targets=[row.target for row in due], updates=[row and row.alert_id for row in rows],
            )  # fmt: skip
        return len(due)

    def _row(self, row: Any, now: datetime) -> NewRow:
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
