"""One delivery: claim, send, settle. The crash policy, case by case:

Protocol A, alerts to staff, at least once. A process that dies (or loses its channel, or the
answer of the database) leaves

  before the claim commits     a pending row, an unacked copy: RabbitMQ hands it out again.
  claimed, not yet sent        `sending` with a lease. The copy comes again at once, finds the
                               lease alive and is parked in .retry (not acked: it is the last one).
                               It comes back, the lease is over, the next attempt is claimed. The
                               dead attempt stays counted: what kills its process runs out of them.
                               It goes alone: what died with it only by chance survives.
  sent, not settled            the same, and the target may get the alert twice. Nothing here can
                               tell this case from the one before. The only source of duplicates.
  settled, not acked           terminal: the copy finds that and is acked. Pending: the copy is
                               not yet due and is parked until it is.
  exhausted                    failed + escalation + outbox row for .dead are one transaction;
                               before it the row is claimed as exhausted again, after it terminal.
  .retry.<seconds>             confirmed publish, then ack: in between there are two copies, and
                               the second to come finds a row that is owned, not due or terminal.
  A worker that was only slow  settles by CAS(sending, attempt); the number moved on when another
                               took over, so it changes nothing and its copy is parked, not acked,
                               unless it saw the row terminal.
  Every copy lost              the sweep publishes overdue rows again with the next turn.
  moved back from .dead        retried as by hand and handed out in one transaction, then acked: a
                               death in between brings the letter again, and its row is not failed.

Claims of one moment share a statement, and so do results (libs/common/batches.py). A statement is
one transaction: a death in it leaves all its rows as before. Each row of it moves as if alone, so
the cases stay those above, for many rows at a time. No more than the target's concurrency are
claimed and not sent yet; what has been sent makes room before it is settled, so twice as many
messages are in hand: a death leaves at most so many alerts that the target may get twice, or
finished rows whose copies are acked when they come again.

Protocol B, mail that leaves at most once and only with a permit. It differs where it must:

  claimed, not yet sending     no byte of the dot can be out: after the lease the next attempt
                               takes over and returns the dead one's permit in the same
                               transaction (a permit belongs to one attempt).
  `sending` committed          the dot may be out: after the lease the row is `in_doubt`, for a
                               person. Never sent again by itself. The permit is not returned:
                               the mail may still be accepted while we look away.
  settled, not acked           as A. The permit's return and the event to the sender of the
                               message are outbox rows of the transaction that moves the row.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from time import monotonic
from uuid import UUID

from opentelemetry.trace import SpanKind
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import db, logs, outbox, tracing
from libs.common.batches import PACE_SECONDS, Batches
from libs.common.broker import Broker, Message, PublishError
from libs.common.consume import Ack, Dead, Delivery, Requeue, Retry, malformed
from libs.common.consume import Outcome as Verdict
from libs.common.topology import dead_name, delay_name
from services.alerts import alert, messages, metrics, topology
from services.alerts.alert import Claimed, Kind, Once, Outcome, Reason, State, Unclaimed
from services.alerts.breaker import Admission, Breaker
from services.alerts.channels import Channel
from services.alerts.channels.email import Email, boottime
from services.alerts.config import EmailTarget, Target
from services.alerts.messages import AlertDead, AlertWork
from services.alerts.permits import Permits
from services.alerts.store import escalations, questions, steps, upkeep
from services.alerts.store.questions import Filter
from services.alerts.store.steps import Ended, Tried
from services.alerts.valve import Valve

log = logs.get_logger(__name__)

SETTLE_AGAIN_SECONDS = 0.5

_EVENTS: dict[State, messages.Settled] = {
    State.DELIVERED: "sent",
    State.FAILED: "failed",
    State.DISCARDED: "cancelled",
    State.IN_DOUBT: "in_doubt",
}


class Worker:
    """Delivers to one target."""

    def __init__(
        self,
        name: str,
        target: Target,
        channel: Channel,
        breaker: Breaker,
        valve: Valve,
        *,
        engine: AsyncEngine,
        broker: Broker,
        permits: Permits,
    ) -> None:
        self._name = name
        self._target = target
        self._retries = len(target.retry_delays)
        self._channel = channel
        self._breaker = breaker
        self._valve = valve
        self._engine = engine
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._broker = broker
        self._permits = permits
        self._places = asyncio.Semaphore(target.concurrency)
        self._claims = Batches(
            self._claim, limit=min(target.in_hand, target.concurrency), pace=PACE_SECONDS
        )
        self._alone = asyncio.Lock()
        self._settlements = Batches(self._settle_all, limit=target.in_hand, pace=PACE_SECONDS)

    async def handle(self, message: Message, _: Delivery) -> Verdict:
        """Do what one work message asks for; an open breaker gives it back, nothing spent."""
        try:
            if message.type == messages.ALERT_DEAD:
                return await self._moved_back(AlertDead.model_validate(message.body))
            work = AlertWork.model_validate(message.body)
        except ValidationError as error:
            return malformed(error)
        waits = self._places.locked()
        async with self._places:
            if waits and not self._valve.taking:  # a stop waits for what is begun only
                return Requeue()
            admission = await self._valve.admit()
            if admission is None:
                return Requeue()
            try:
                done = await self._work(work, message, admission)
            finally:
                self._breaker.settle(admission)
        # Written down without a place: the next is sent meanwhile, and more share the statement.
        return await self._settle(done, message) if isinstance(done, Tried) else done

    async def _work(
        self, work: AlertWork, message: Message, admission: Admission
    ) -> Tried | Verdict:
        job = await self._claims.ask((work.alert_id, work.turn))
        if job is None:
            return await self._unclaimed(work, message, admission)
        return await self._attempt(job, admission)

    async def _attempt(self, job: Claimed, admission: Admission) -> Tried:
        start = monotonic()
        return self._tried(job, await self._send(job), admission, monotonic() - start)

    async def _moved_back(self, dead: AlertDead) -> Verdict:
        """Retry what a person moved from `.dead` in RabbitMQ's UI, if it is failed still."""
        if dead.target != self._name:
            return Dead("of another target")
        async with self._engine.begin() as tx:
            chosen = Filter(ids=[dead.alert_id], target=self._name)
            rows = await questions.locked(tx, "failed", chosen, None, 1, retriable=[self._name])
            await upkeep.hand_out(tx, rows, **upkeep.AFRESH, operator="rabbitmq")
        log.info("delivery.moved_back", alert_id=str(dead.alert_id), retried=bool(rows))
        return Ack()

    async def _claim(self, asked: Sequence[tuple[UUID, int]]) -> list[Claimed | None]:
        async with self._single.connect() as tx:
            return await steps.claim(
                tx, self._name, asked, lease=self._target.lease, retries=self._retries
            )

    async def _send(self, job: Claimed) -> Outcome:
        try:
            return await self._traced(self._channel.send(job))
        except Exception as error:  # a channel raises only for what the payload made impossible
            log.exception("delivery.unsendable", target=self._name, alert_id=str(job.alert_id))
            return Outcome(Kind.NEVER, Reason.BAD_PAYLOAD, excerpt=type(error).__name__)

    async def _traced(self, sending: Awaitable[Outcome]) -> Outcome:
        with tracing.span(SpanKind.CLIENT, f"deliver {self._name}") as span:
            outcome = await sending
            span.set_attribute("outcome", outcome.kind)
        return outcome

    def _tried(self, job: Claimed, outcome: Outcome, admission: Admission, seconds: float) -> Tried:
        admission.kind = outcome.kind
        if outcome.kind is Kind.LATER:  # before another can take the place
            self._valve.hold(outcome.retry_after or 0.0)
        metrics.attempt(self._name, outcome.kind, outcome.reason, seconds)
        decision = alert.decide(
            outcome,
            spent=job.spent,
            age=job.age,
            policy=self._target.policy,
            once=job.once is not None,
        )
        return Tried(job, outcome, decision, seconds)

    async def _settle(self, tried: Tried, message: Message) -> Verdict:
        job, outcome, decision = tried.job, tried.outcome, tried.decision
        ours = await self._record(tried)
        log.info(
            "delivery.settled",
            target=self._name,
            alert_id=str(job.alert_id),
            attempt=job.attempt,
            outcome=outcome.kind,
            reason=outcome.reason,
            status=outcome.status,
            state=decision.state,
            ours=ours,
            seconds=round(tried.seconds, 4),
        )
        if not ours:
            return await self._fenced(job)
        if decision.state is State.PENDING:
            return await self._again(message, decision.delay, decision.reason)
        return Ack()

    async def _record(self, tried: Tried) -> bool:
        """Write the result down, and again while the database blinks.

        The message has left: to give up at the first error would send it again, or put it in
        doubt. Within the lease nobody else claims the row, and after it CAS decides.
        """
        give_up = monotonic() + self._target.margin
        while True:
            try:
                if tried.job.once is None and tried.decision.state is not State.FAILED:
                    return await self._settlements.ask(tried)
                return await self._settle_and_tell(tried)
            except Exception as error:
                if not db.may_pass(error) or monotonic() >= give_up:
                    raise
                log.warning("delivery.settle_again", target=self._name)
                await asyncio.sleep(SETTLE_AGAIN_SECONDS)

    async def _settle_all(self, tried: Sequence[Tried]) -> list[bool]:
        async with self._single.connect() as tx:
            return await steps.settle(tx, tried)

    async def _settle_and_tell(self, tried: Tried) -> bool:
        job, outcome, decision = tried.job, tried.outcome, tried.decision
        async with self._engine.begin() as tx:
            if not all(await steps.settle(tx, [tried])):
                return False
            if job.once is not None and decision.state is not State.IN_DOUBT:
                await return_permit(tx, job.alert_id, job.attempt, job.once)
            if decision.state is not State.PENDING:
                ended = Ended(
                    job.alert_id,
                    self._name,
                    job.attempt,
                    job.event_type,
                    steps.error_text(outcome),
                    job.once,
                )
                await tell(tx, ended, decision.state, decision.reason)
            return True

    async def _again(self, message: Message, delay: float, reason: str) -> Verdict:
        """Hand the copy to the queue that waits that long."""
        if delay == self._target.retry_delays[0]:
            return Retry(reason)
        queue = delay_name(topology.work_name(self._name), int(delay))
        try:
            await self._broker.publish(topology.DLX.name, queue, replace(message, headers={}))
        except PublishError:
            return Retry(reason)  # back too early or too late, which the row's due time evens out
        return Ack()

    async def _fenced(self, job: Claimed) -> Verdict:
        """Another worker took over, but its copy may be gone: ack over a finished row only."""
        metrics.FENCED.labels(self._name).inc()
        log.info("delivery.fenced", alert_id=str(job.alert_id), attempt=job.attempt)
        async with self._single.connect() as tx:
            seen = await steps.see(tx, job.alert_id, self._name)
        verdict = alert.unclaimed(seen, turn=job.turn, retries=self._retries)
        return Ack() if verdict is Unclaimed.ACK else Retry("fenced")

    async def _unclaimed(
        self, work: AlertWork, message: Message, admission: Admission
    ) -> Tried | Verdict:
        async with self._single.connect() as tx:
            seen = await steps.see(tx, work.alert_id, self._name)
        if seen is not None and seen.once and seen.state in {State.PENDING, State.CLAIMED}:
            job = await self._claim_once(work)
            if job is not None and job.once is not None:
                return await self._work_once(job, job.once, admission)
        match alert.unclaimed(seen, turn=work.turn, retries=self._retries):
            case Unclaimed.ACK:
                return Ack()
            case Unclaimed.EXHAUSTED:
                async with self._engine.begin() as tx:
                    ended = await steps.exhaust(
                        tx, work.alert_id, self._name, work.turn, self._retries
                    )
                    if ended is not None:
                        if ended.once is not None:
                            await return_permit(tx, ended.alert_id, ended.attempt, ended.once)
                        await tell(tx, ended, State.FAILED, Reason.EXHAUSTED)
                return Ack() if ended is not None else Retry("parked")
            case Unclaimed.DOUBT:
                return (
                    Ack()
                    if await doubt(self._engine, work.alert_id, self._name)
                    else Retry("parked")
                )
            case Unclaimed.TAKE_OVER:
                return await self._take_over(work, message, admission)
        return Retry("parked")

    async def _take_over(self, work: AlertWork, message: Message, admission: Admission) -> Verdict:
        """Try again what was in hand when its worker died: one at a time, claimed only then.

        One of them may be what killed it. Tried together they would die with it each time, and run
        out of attempts as it does.
        """
        async with self._alone:
            # Meanwhile the breaker may have opened, and another may be the one trial after that.
            if self._valve.seconds_shut > 0 or not self._breaker.holds(admission):
                return Requeue()
            async with self._single.connect() as tx:
                (job,) = await steps.claim(
                    tx,
                    self._name,
                    [(work.alert_id, work.turn)],
                    lease=self._target.lease,
                    retries=self._retries,
                    take_over=True,
                )
            if job is None:
                return Retry("parked")
            return await self._settle(await self._attempt(job, admission), message)

    # Protocol B.

    async def _claim_once(self, work: AlertWork) -> Claimed | None:
        async with self._engine.begin() as tx:
            job, taken_over = await steps.claim_once(
                tx,
                work.alert_id,
                self._name,
                work.turn,
                lease=self._target.lease,
                retries=self._retries,
            )
            if job is not None and job.once is not None and taken_over:
                await return_permit(tx, job.alert_id, job.attempt - 1, job.once)
        return job

    async def _work_once(self, job: Claimed, once: Once, admission: Admission) -> Tried | Verdict:
        if not isinstance(self._target, EmailTarget) or not isinstance(self._channel, Email):
            raise TypeError("intake lets only mail be sent at most once")
        asked_at = boottime()  # before asking: the permit's time cannot have begun earlier
        answer = await self._permits.ask(
            job, once, seconds=self._target.ask_timeout, margin=self._target.margin
        )
        match answer and answer.answer:
            case "granted" if answer is not None:
                permit_over = asked_at + min(answer.seconds, self._target.permit)
                dot_before = asked_at + min(answer.seconds / 2, self._target.dot_deadline)
            case "denied":
                return await self._cancel(job, once, Reason.WITHDRAWN)
            case _ if job.age > self._target.permit_patience:
                return await self._cancel(job, once, Reason.NO_PERMIT)
            case _:
                return await self._unanswered(job, once)
        async with self._engine.begin() as tx:
            sending = await steps.move(
                tx, job, State.CLAIMED, State.SENDING, seconds=self._target.lease
            )
            if not sending:  # somebody took over, and has a permit of its own
                await return_permit(tx, job.alert_id, job.attempt, once)
        if not sending:
            return await self._fenced(job)
        start = monotonic()
        outcome = await self._traced(self._channel.send(job, dot_before=dot_before))
        may_be_out = outcome.kind in {Kind.DELIVERED, Kind.UNKNOWN}
        if may_be_out and boottime() >= permit_over:
            metrics.PERMIT_OVERRUN.inc()
            log.error("permit.overrun", alert_id=str(job.alert_id), attempt=job.attempt)
            outcome = replace(outcome, kind=Kind.UNKNOWN, reason=Reason.OVERRUN)
        return self._tried(job, outcome, admission, monotonic() - start)

    async def _cancel(self, job: Claimed, once: Once, reason: Reason) -> Verdict:
        async with self._engine.begin() as tx:
            await return_permit(tx, job.alert_id, job.attempt, once)
            ours = await steps.move(tx, job, State.CLAIMED, State.DISCARDED, reason=reason)
            if ours:
                ended = Ended(job.alert_id, self._name, job.attempt, job.event_type, None, once)
                await tell(tx, ended, State.DISCARDED, reason)
        log.info("delivery.cancelled", alert_id=str(job.alert_id), reason=reason, ours=ours)
        return Ack() if ours else await self._fenced(job)

    async def _unanswered(self, job: Claimed, once: Once) -> Verdict:
        """Closed or no answer: nothing was denied, nothing is spent, it waits."""
        async with self._engine.begin() as tx:
            # Whatever the CAS says: the answer may only have been lost on its way.
            await return_permit(tx, job.alert_id, job.attempt, once)
            await steps.move(
                tx,
                job,
                State.CLAIMED,
                State.PENDING,
                reason=Reason.NO_PERMIT,
                seconds=self._target.retry_delays[0],
                refund=True,
            )
        return Retry("no permit")


async def return_permit(tx: AsyncConnection, alert_id: UUID, attempt: int, once: Once) -> None:
    """In the transaction that moves the row, so that it is never lost."""
    await outbox.add(
        tx,
        topology.CONSENT_COMMANDS,
        messages.PERMIT_RETURN,
        messages.permit_return(alert_id, attempt, once),
    )


async def tell(tx: AsyncConnection, ended: Ended, state: State, reason: Reason) -> None:
    """In the transaction that ends a row: whoever must hear of it.

    A failure, a doubt and a mail given up without consent's answer go to a person; a failure also
    leaves its ids in `.dead`; the sender of a message that leaves at most once hears every end.
    """
    if ended.event_type == messages.ESCALATION and state is State.FAILED:
        await escalations.untell(tx, ended.alert_id)
    elif state in {State.FAILED, State.IN_DOUBT} or reason is Reason.NO_PERMIT:
        await escalations.escalate(tx, ended, reason)
    if state is State.FAILED and reason is not Reason.UNROUTED:  # there is no such queue
        await outbox.add(
            tx,
            topology.DLX.name,
            dead_name(topology.work_name(ended.target)),
            messages.dead(ended.alert_id, ended.target, ended.event_type, reason),
        )
    if ended.once is not None:
        outcome = _EVENTS[state]
        await outbox.add(
            tx,
            topology.EVENTS.name,
            f"followup.{outcome}",
            messages.settled(ended.alert_id, ended.target, ended.once, outcome, reason),
        )


async def doubt(engine: AsyncEngine, alert_id: UUID, target: str) -> bool:
    """End a mail whose worker died with the dot perhaps out; False when it is not so any more."""
    async with engine.begin() as tx:
        ended = await steps.doubt(tx, alert_id, target)
        if ended is not None:
            await tell(tx, ended, State.IN_DOUBT, Reason.CRASHED)
    return ended is not None
