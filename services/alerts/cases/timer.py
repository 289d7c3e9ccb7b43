"""Sends the due steps of cases, ends cases whose chain is over, and reminds forgetful owners.

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
from libs.common.process import logs
from services.alerts import metrics
from services.alerts.cases.answers import Answers
from services.alerts.cases.steps import new_row
from services.alerts.intake import accept_rows
from services.alerts.rules import case
from services.alerts.rules.case import Moved, Rules, State
from services.alerts.store.cases import cases
from services.alerts.store.cases.cases import Ticked

log = logs.get_logger(__name__)

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
            async with self.engine.connect() as tx:
                ids = await cases.due_ids(tx)
            if ids:
                await halved(self._move, ids, self._fail)
            more = len(ids) == cases.DUE_BATCH

    async def _fail(self, case_ids: Sequence[UUID], error: Exception) -> None:
        """Put off a case that cannot be moved; the second time, notify operators."""
        if postgres.is_transient(error):
            raise error
        log.error("case.timer_failed", case_id=str(case_ids[0]), exc_info=error)
        async with self.engine.begin() as tx:
            await cases.failed(tx, case_ids[0], type(error).__name__)

    async def _move(self, case_ids: Sequence[UUID]) -> None:
        async with self.engine.begin() as tx:
            due = await cases.due(tx, case_ids)
            now = await cases.now(tx)
            forgotten = [row.alert_id for row in due if self._is_forgotten(row, now)]
            due = [row for row in due if row.alert_id not in forgotten]
            ticked = [self._tick(row, now) for row in due]
            await cases.tick(tx, ticked)
            handed_out = [each for each in ticked if each.alert_id is not None]
            if handed_out:
                rows = [new_row(each, now, self.targets, each.case.named) for each in handed_out]
                await accept_rows(tx, rows)
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
