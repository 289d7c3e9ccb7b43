"""Protocol A: alerts to staff are delivered at least once (docs/protocols.md)."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

from libs.common.database import postgres
from libs.common.database.group_commit import Batches, pace
from libs.common.messaging.broker import Message, PublishError
from libs.common.messaging.consumer import REASON, Ack, Disposition, Requeue, Retry
from libs.common.messaging.topology import dead_name
from libs.common.process import logs
from services.alerts import messages, metrics, topology
from services.alerts.delivery import case_messages, ending
from services.alerts.delivery.worker import RETRY_DATABASE_SECONDS, Worker
from services.alerts.messages import AlertWork
from services.alerts.rules import delivery as alert
from services.alerts.rules.delivery import (
    Claimed,
    Kind,
    Outcome,
    Reason,
    RowStatus,
    State,
    Unclaimed,
)
from services.alerts.store.ledger import transitions
from services.alerts.store.ledger.transitions import Attempt
from services.alerts.targets.breaker import Admission

log = logs.get_logger(__name__)


class AtLeastOnceWorker(Worker):
    """Delivers to one target, possibly twice after a crash."""

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = min(self.target.prefetch, self.target.concurrency)
        self._claims = Batches(self._claim, limit=limit, pace=pace(limit))
        self._takeover = asyncio.Lock()

    async def _work(
        self, work: AlertWork, message: Message, admission: Admission
    ) -> Attempt | Disposition:
        job = await self._claims.submit((work.alert_id, work.generation))
        if job is None:
            async with self._autocommit.connect() as tx:
                seen = await transitions.see(tx, work.alert_id, self.name)
            return await self._unclaimed(work, message, seen, admission)
        if job.severity != "critical":  # which overtakes others
            self.throttle.reached = job.due_at
        return await self._attempt(job, admission)

    async def _claim(
        self, asked: Sequence[tuple[UUID, int]], *, take_over: bool = False
    ) -> list[Claimed | None]:
        async with self._autocommit.connect() as tx:
            return await transitions.claim(
                tx,
                self.name,
                asked,
                lease=self.target.lease,
                retries=self._retries,
                take_over=take_over,
            )

    async def _attempt(self, job: Claimed, admission: Admission) -> Attempt:
        want, start = None, monotonic()
        try:
            job, want = await self._written(job)
            start = monotonic()
            outcome = await self._traced(self.channel.send(job))
        except Exception as error:  # only what cannot be written or sent, whenever it is tried
            log.exception("delivery.unsendable", target=self.name, alert_id=str(job.alert_id))
            outcome = Outcome(Kind.NEVER, Reason.BAD_PAYLOAD, excerpt=type(error).__name__)
        attempt = self._attempted(job, outcome, admission, monotonic() - start)
        if job.event_type in self.rules.policies:
            want = 0  # the alert itself: it asks
        return attempt if want is None else replace(attempt, want=want)

    async def _written(self, job: Claimed) -> tuple[Claimed, int | None]:
        """Write a case's message, or the buttons of an alert that asks.

        Waits for the database: the row is claimed, so raising would park it until its lease is over
        and its retry due.
        """
        if job.resolved:
            return case_messages.recovered(job), None
        case = job.event_type in messages.CASE_EVENTS
        if not case and not (self.target.answerable and job.event_type in self.rules.policies):
            return job, None
        while True:
            try:
                if not case:
                    return await case_messages.with_buttons(self._autocommit, self.rules, job), None
                return await case_messages.written(
                    self._autocommit, self.rules, self.target.channel, job
                )
            except Exception as error:
                if postgres.is_transient(error):
                    await asyncio.sleep(RETRY_DATABASE_SECONDS)
                elif case:
                    raise
                else:  # the alert is P1's, whatever is wrong with its case
                    log.exception("case.no_buttons", alert_id=str(job.alert_id))
                    return job, None

    async def _unclaimed(
        self, work: AlertWork, message: Message, seen: RowStatus | None, admission: Admission
    ) -> Attempt | Disposition:
        match alert.unclaimed(seen, generation=work.generation, retries=self._retries):
            case Unclaimed.TAKE_OVER:
                return await self._take_over(work, message, admission)
            case Unclaimed.ACK:
                over = True
            case Unclaimed.EXHAUSTED:
                over = await self._exhaust(work)
            case Unclaimed.DOUBT:
                over = await ending.mark_in_doubt(self.engine, work.alert_id, self.name)
            case Unclaimed.MISSING_ROW:
                over = await self._keep_orphan(work, message)
            case Unclaimed.PARK:
                over = False
        return Ack() if over else Retry("parked")

    async def _exhaust(self, work: AlertWork) -> bool:
        async with self.engine.begin() as tx:
            ended = await transitions.exhaust(
                tx, work.alert_id, self.name, work.generation, self._retries
            )
            if ended is not None:
                if ended.once is not None:
                    await ending.return_permit(tx, ended.alert_id, ended.attempt, ended.once)
                await ending.notify(tx, ended, State.FAILED, Reason.EXHAUSTED)
        if ended is not None and ended.event_type == messages.CASE_STEP:
            await self._bring_forward(ended.alert_id)
        return ended is not None

    async def _keep_orphan(self, work: AlertWork, message: Message) -> bool:
        """Keep the last trace of an alert whose row the database has lost.

        It goes to alerts.intake.dead: no runbook empties that queue unread, its messages open an
        incident, and the ledger check fails.
        """
        async with self._autocommit.connect() as tx:
            if await transitions.may_be_purged(tx, self.name, work.at or datetime.now(UTC)):
                return True
        lost = replace(message, headers={REASON: "no row"})
        try:
            await self.broker.publish(topology.DLX.name, dead_name(topology.INTAKE_QUEUE), lost)
        except PublishError:
            return False
        metrics.MISSING_ROW.labels(self.name).inc()
        log.error("delivery.missing_row", target=self.name, alert_id=str(work.alert_id))
        return True

    async def _take_over(
        self, work: AlertWork, message: Message, admission: Admission
    ) -> Disposition:
        """Retry what was in flight when its worker died: one at a time, claimed only then.

        One of these alerts may have killed the worker. Tried together, the others would die with it
        each time, and run out of attempts as it does.
        """
        async with self._takeover:
            # While this waited, the breaker may have opened, and another message may be its one
            # trial since. And a stop waits only for what has begun.
            held = self.breaker.holds(admission)
            if self.throttle.seconds_shut > 0 or not held or not self.throttle.taking:
                return Requeue()
            (job,) = await self._claim([(work.alert_id, work.generation)], take_over=True)
            if job is None:
                return Retry("parked")
            return await self._finish(await self._attempt(job, admission), message)
