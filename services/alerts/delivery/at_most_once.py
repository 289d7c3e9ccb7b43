"""Protocol B: mails that need consent's permit are sent at most once (docs/protocols.md)."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Disposition, Retry
from libs.common.process.logs import log
from services.alerts import metrics
from services.alerts.channels.email import Email, EmailTarget, boottime
from services.alerts.delivery import ending
from services.alerts.delivery.permits import Permits
from services.alerts.delivery.worker import Worker
from services.alerts.messages import AlertWork, PermitAnswer
from services.alerts.rules.delivery import Claimed, Kind, Once, Reason, RowStatus, State
from services.alerts.store.ledger import transitions
from services.alerts.store.ledger.transitions import Attempt, Ended
from services.alerts.targets.breaker import Admission


@dataclass(eq=False)
class AtMostOnceWorker(Worker):
    """Delivers to one mail target, which also gets mails to staff, at least once."""

    target: EmailTarget
    channel: Email
    permits: Permits

    async def _unclaimed(
        self, work: AlertWork, message: Message, seen: RowStatus | None, admission: Admission
    ) -> Attempt | Disposition:
        if seen is not None and seen.once and seen.state in {State.PENDING, State.CLAIMED}:
            job = await self._claim_once(work)
            if job is not None and job.once is not None:
                self.throttle.reached = job.due_at
                return await self._send_once(job, job.once, admission)
        return await super()._unclaimed(work, message, seen, admission)

    async def _claim_once(self, work: AlertWork) -> Claimed | None:
        async with self.engine.begin() as tx:
            job, taken_over = await transitions.claim_once(
                tx,
                work.alert_id,
                self.name,
                work.generation,
                lease=self.target.lease,
                retries=self._retries,
                asked_at=boottime(),
            )
            if job is not None and job.once is not None and taken_over:
                await ending.return_permit(tx, job.alert_id, job.attempt - 1, job.once)
        return job

    async def _send_once(
        self, job: Claimed, once: Once, admission: Admission
    ) -> Attempt | Disposition:
        if boottime() >= once.window_ends:
            return await self._cancel(job, once, Reason.WINDOW_OVER)
        asked_at = boottime()  # before asking: the permit cannot have begun earlier
        answer = await self.permits.ask(
            job, once, seconds=self.target.ask_timeout, margin=self.target.margin
        )
        if answer is None or answer.answer != "granted":
            return await self._not_granted(job, once, answer)
        permit_over = asked_at + min(answer.seconds, self.target.permit)
        dot_before = asked_at + min(answer.seconds / 2, self.target.dot_deadline)
        dot_before = min(dot_before, once.window_ends)
        async with self.engine.begin() as tx:
            sending = await transitions.move(
                tx, job, State.CLAIMED, State.SENDING, seconds=self.target.lease
            )
            if not sending:  # another worker took over, with a permit of its own
                await ending.return_permit(tx, job.alert_id, job.attempt, once)
        if not sending:
            return await self._fenced(job)
        start = monotonic()
        outcome = await self._traced(self.channel.send(job, dot_before=dot_before))
        may_be_out = outcome.kind in {Kind.DELIVERED, Kind.UNKNOWN}
        if may_be_out and boottime() >= permit_over:
            metrics.PERMIT_OVERRUN.inc()
            log.error("permit.overrun", alert_id=str(job.alert_id), attempt=job.attempt)
            outcome = replace(outcome, kind=Kind.UNKNOWN, reason=Reason.OVERRUN)
        return self._attempted(job, outcome, admission, monotonic() - start)

    async def _not_granted(
        self, job: Claimed, once: Once, answer: PermitAnswer | None
    ) -> Disposition:
        if answer is not None and answer.answer == "denied":
            return await self._cancel(job, once, Reason.WITHDRAWN)
        if answer is not None and answer.reason == Reason.DEFERRED:
            until = datetime.now(UTC) + timedelta(seconds=answer.seconds)
            return await self._cancel(job, once, Reason.DEFERRED, until)
        no_consent = answer is not None and answer.reason == Reason.NO_CONSENT
        reason = Reason.NO_CONSENT if no_consent else Reason.NO_PERMIT
        if job.age > self.target.permit_patience:
            return await self._cancel(job, once, reason)
        return await self._wait_for_permit(job, once, reason)

    async def _cancel(
        self, job: Claimed, once: Once, reason: Reason, until: datetime | None = None
    ) -> Disposition:
        async with self.engine.begin() as tx:
            await ending.return_permit(tx, job.alert_id, job.attempt, once)
            ours = await transitions.move(tx, job, State.CLAIMED, State.DISCARDED, reason=reason)
            if ours:
                ended = Ended(job.alert_id, self.name, job.attempt, job.event_type, None, once)
                await ending.notify(tx, ended, State.DISCARDED, reason, until)
        log.info("delivery.cancelled", alert_id=str(job.alert_id), reason=reason, ours=ours)
        return Ack() if ours else await self._fenced(job)

    async def _wait_for_permit(self, job: Claimed, once: Once, reason: Reason) -> Disposition:
        """Park a mail after `closed` or no reply: nothing was denied, so no attempt is counted."""
        async with self.engine.begin() as tx:
            # Whatever the CAS says: consent may have granted it, and only the reply was lost.
            await ending.return_permit(tx, job.alert_id, job.attempt, once)
            await transitions.move(
                tx,
                job,
                State.CLAIMED,
                State.PENDING,
                reason=reason,
                seconds=self.target.retry_delays[0],
                refund=True,
            )
        return Retry(str(reason))
