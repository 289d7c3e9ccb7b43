"""One delivery to one target: admit, claim, send, record the outcome, acknowledge.

This is protocol A (docs/protocols.md): a crash may deliver an alert twice.

What a crash leaves at each step, and what continues from there: docs/architecture.md, "The way of
one alert". These rules must hold:

- A message is acknowledged only when its row has ended or belongs to a later generation. Any other
  is parked: it may be the last one.
- A claim counts its attempt, whatever happens to the process, so that an alert that kills its
  process runs out of attempts. A dead worker's rows are retried one at a time, so that such an
  alert cannot use up the others' attempts.
- An outcome is written by CAS(sending, attempt): a worker that was only slow changes nothing.
- The transaction that ends a row also holds every notification of it: escalation, `.dead`, permit,
  event.
- A mail that is sent at most once is never sent again automatically once `sending` is committed,
  because the server may have accepted it. If its worker dies earlier, the next attempt returns the
  unused permit.

Claims made at the same moment share a statement, and so do outcomes (group_commit.py). A statement
is one transaction: a crash in it leaves all of its rows as before, and each row moves as if alone.

A message may hold several rows (`alert.works`). Each is handled as if it came alone, and it is done
when all are: ended, or with a message of their own.

At most `concurrency` rows are claimed and not sent yet. A row that was sent frees its slot before
its outcome is recorded, so up to twice as many rows are in flight. After a crash only these may
reach the target twice: the message of an ended row is acknowledged, and no other row had begun.
"""

import asyncio
import math
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import random
from time import monotonic
from typing import cast
from uuid import UUID

from opentelemetry.trace import SpanKind
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.database.engine import alone
from libs.common.database.group_commit import Batches, pace
from libs.common.messaging.broker import HIGH, Broker, Message, PublishError
from libs.common.messaging.consumer import (
    REASON,
    Ack,
    Dead,
    Disposition,
    Requeue,
    Retry,
    read,
)
from libs.common.messaging.topology import dead_name, delay_name, retry_name
from libs.common.process import logs, tracing
from libs.common.process.logs import log
from services.alerts import messages, metrics, topology
from services.alerts.channels.channel import Channel, Target
from services.alerts.delivery import case_messages, ending
from services.alerts.messages import AlertDead, AlertWork
from services.alerts.rules import delivery as alert
from services.alerts.rules.case import Rules
from services.alerts.rules.delivery import (
    Claimed,
    Kind,
    Outcome,
    Reason,
    RowStatus,
    State,
    Unclaimed,
)
from services.alerts.store.cases import cases, places
from services.alerts.store.ledger import queries, transitions, upkeep
from services.alerts.store.ledger.queries import Filter
from services.alerts.store.ledger.transitions import Attempt, Ended
from services.alerts.targets.breaker import Admission, Breaker
from services.alerts.targets.throttle import Throttle

RETRY_DATABASE_SECONDS = 0.5


@dataclass(eq=False)
class Worker:
    """Delivers to one target, at least once."""

    name: str
    target: Target
    channel: Channel
    breaker: Breaker
    throttle: Throttle
    engine: AsyncEngine
    broker: Broker
    rules: Rules = field(default_factory=Rules, kw_only=True)

    def __post_init__(self) -> None:
        self._retries = len(self.target.retry_delays)
        self._unrecorded: set[UUID] = set()  # alerts whose outcome the database does not have yet
        limit = self.target.prefetch
        self._outcomes = Batches(self._record_batch, limit=limit, pace=pace(limit))
        limit = min(limit, self.target.concurrency)
        self._claims = Batches(self._claim, limit=limit, pace=pace(limit))
        self._takeover = asyncio.Lock()
        self._room = asyncio.Semaphore(self.target.prefetch)

    async def handle(self, message: Message) -> Disposition:
        """Process one message; an open breaker requeues it without counting an attempt."""
        match message.type:
            case messages.ALERT_DEAD:
                return await self._retry_moved_back(read(message, AlertDead))
            case messages.ALERT_WORKS:
                return await self._handle_together(messages.each_work(message))
        return await self._handle(message)

    async def _handle_together(self, works: Sequence[Message]) -> Disposition:
        """Handle each work of a batch as if it came alone."""
        outcomes: list[Disposition | Exception] = [Requeue()] * len(works)

        async def handle(position: int, work: Message) -> None:
            logs.request_id.set(work.request_id)
            try:
                outcomes[position] = await self._handle(work)
            except Exception as error:  # noqa: BLE001 - raised when the others have ended
                outcomes[position] = error
            finally:
                self._room.release()

        async with asyncio.TaskGroup() as rows:
            for position, work in enumerate(works):
                waits = self._room.locked()
                await self._room.acquire()
                if waits and not self.throttle.taking:
                    self._room.release()
                    break
                # In its own context, so that its span is in the trace of its request.
                rows.create_task(handle(position, work), context=Context())
        for error in outcomes:
            if isinstance(error, Exception):
                raise error
        return await self._leave(works, outcomes)

    async def _leave(
        self, works: Sequence[Message], outcomes: Sequence[Disposition | Exception]
    ) -> Disposition:
        """Give what is not done messages of its own, confirmed before the batch is acknowledged."""
        left = [pair for pair in zip(works, outcomes, strict=True) if pair[1] != Ack()]
        if len(left) == len(works) and len({type(outcome) for _, outcome in left}) == 1:
            return cast("Disposition", outcomes[0])  # the whole batch comes again
        rest = [work for work, outcome in left if isinstance(outcome, Requeue)]
        parked = [work for work, outcome in left if not isinstance(outcome, Requeue)]
        queue = topology.work_name(self.name)
        sent: list[PublishError | None] = []
        for exchange, key, each in (
            (topology.DLX, retry_name(queue), parked),
            (topology.ALERTS, queue, [messages.works(rest)] if rest else []),
        ):
            if each:
                encoded = list(map(self.broker.encode, each))
                sent += await self.broker.send_all(exchange.name, key, encoded, timeout=5.0)
        failed = next(filter(None, sent), None)
        return Retry(type(failed).__name__) if failed else Ack()

    async def _handle(self, message: Message) -> Disposition:
        work = read(message, AlertWork)
        if work.alert_id in self._unrecorded:  # its lease may be over, but it is not abandoned
            return Retry("parked")
        waits, urgent = self.throttle.slots.taken, message.priority == HIGH
        async with self.throttle.slots.taking_one(urgent=urgent):
            if waits and not self.throttle.taking:  # a stop waits only for what has begun
                return Requeue()
            admission = await self.throttle.admit(urgent=urgent)
            if admission is None:
                return Requeue()
            try:
                done = await self._work(work, message, admission)
            finally:
                self.breaker.record(admission)
        # Recorded without a slot: the next is sent at the same time, and more share the statement.
        return await self._finish(done, message) if isinstance(done, Attempt) else done

    async def _work(
        self, work: AlertWork, message: Message, admission: Admission
    ) -> Attempt | Disposition:
        """Claim the row and send the alert, or say what to do with the message instead."""
        job = await self._claims.submit((work.alert_id, work.generation))
        if job is None:
            async with alone(self.engine) as tx:
                seen = await transitions.see(tx, work.alert_id, self.name)
            return await self._unclaimed(work, message, seen, admission)
        if job.severity != "critical":  # which overtakes others
            self.throttle.reached = job.due_at
        return await self._attempt(job, admission)

    async def _claim(
        self, asked: Sequence[tuple[UUID, int]], *, take_over: bool = False
    ) -> list[Claimed | None]:
        async with alone(self.engine) as tx:
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
        except Exception as error:  # only what could never be written or sent
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
                    return await case_messages.with_buttons(self.engine, self.rules, job), None
                return await case_messages.written(
                    self.engine, self.rules, self.target.channel, job
                )
            except Exception as error:
                if postgres.is_transient(error):
                    await asyncio.sleep(RETRY_DATABASE_SECONDS)
                elif case:
                    raise
                else:  # P1 covers the alert, whatever is wrong with its case
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
        key = {"alert_id": work.alert_id, "target": self.name, "generation": work.generation}
        async with self.engine.begin() as tx:
            found = await transitions.run(tx, "exhaust", **key, retries=self._retries)
            for ended in map(transitions.ended, found):
                if ended.once is not None:
                    await ending.return_permit(tx, ended.alert_id, ended.attempt, ended.once)
                await ending.notify(tx, ended, State.FAILED, Reason.EXHAUSTED)
        if found and found[0].event_type == messages.CASE_STEP:
            await self._bring_forward(work.alert_id)
        return bool(found)

    async def _keep_orphan(self, work: AlertWork, message: Message) -> bool:
        """Keep the last trace of an alert whose row the database has lost.

        It goes to alerts.intake.dead: no runbook empties that queue unread, its messages open an
        incident, and the ledger check fails.
        """
        async with alone(self.engine) as tx:
            at = work.at or datetime.now(UTC)
            purged = await transitions.run(tx, "may_be_purged", target=self.name, at=at)
        if purged.scalar_one():
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
        each time, and run out of attempts as well.
        """
        async with self._takeover:
            # While this waited, the breaker may have opened, and another message may already be its
            # one trial. And a stop waits only for what has begun.
            same = self.breaker.unchanged_since(admission)
            if self.throttle.seconds_shut > 0 or not same or not self.throttle.taking:
                return Requeue()
            (job,) = await self._claim([(work.alert_id, work.generation)], take_over=True)
            if job is None:
                return Retry("parked")
            return await self._finish(await self._attempt(job, admission), message)

    async def _retry_moved_back(self, dead: AlertDead) -> Disposition:
        """Retry a dead letter that an operator moved back in RabbitMQ's UI, if its row failed."""
        if dead.target != self.name:
            return Dead("of another target")
        async with self.engine.begin() as tx:
            chosen = Filter(ids=[dead.alert_id], target=self.name)
            if not await cases.may_be_pending(tx, dead.alert_id):
                log.info("dead_letter.case_over", alert_id=str(dead.alert_id))
                return Ack()
            rows = await queries.locked(tx, "failed", chosen, None, 1, retriable=True)
            # An old update would race the next one of its place.
            rows = [row for row in rows if row.event_type != messages.CASE_UPDATE]
            await upkeep.requeue(tx, rows, **upkeep.RESET | {"operator": "rabbitmq"})
        log.info("dead_letter.requeued", alert_id=str(dead.alert_id), retried=bool(rows))
        return Ack()

    async def _traced(self, sending: Awaitable[Outcome]) -> Outcome:
        with tracing.span(SpanKind.CLIENT, f"deliver {self.name}") as span:
            outcome = await sending
            span.set_attribute("outcome", outcome.kind)
        return outcome

    def _attempted(
        self, job: Claimed, outcome: Outcome, admission: Admission, seconds: float
    ) -> Attempt:
        admission.kind, admission.refusal = outcome.kind, outcome.refusal
        metrics.attempt(self.name, outcome.kind, outcome.reason, seconds)
        transition = alert.decide(
            outcome,
            attempts=job.attempts,
            age=job.age,
            policy=self.target.policy,
            once=job.once is not None,
            singled_out=job.singled_out,
        )
        if self.target.waits_in_ledger:
            transition = alert.spread(transition, outcome, random())  # noqa: S311
        if outcome.kind is Kind.LATER:  # before another message can take the slot
            self.throttle.hold(outcome.retry_after or transition.delay)
        return Attempt(job, outcome, transition, seconds)

    async def _finish(self, attempt: Attempt, message: Message) -> Disposition:
        """Record the outcome, then acknowledge the message or send it to a retry queue."""
        job, outcome, transition = attempt.job, attempt.outcome, attempt.transition
        state = await self._record(attempt)
        log.info(
            "delivery.settled",
            target=self.name,
            alert_id=str(job.alert_id),
            attempt=job.attempt,
            outcome=outcome.kind,
            reason=outcome.reason,
            status=outcome.status,
            state=state or transition.state,
            ours=state is not None,
            seconds=round(attempt.seconds, 4),
        )
        if state is None:
            return await self._fenced(job, outcome.receipt)
        if state is State.PENDING:
            return await self._retry_later(message, transition.delay, transition.reason)
        if state is State.FAILED and job.event_type == messages.CASE_STEP:
            await self._bring_forward(job.alert_id)
        return Ack()

    async def _bring_forward(self, alert_id: UUID) -> None:
        """Let a step's successor come at once; if that is lost, the wait runs out instead.

        Not in the transaction that records the outcome, which must not wait for a case.
        """
        await cases.run.alone(self.engine, "bring_forward", alert_id=alert_id)

    async def _record(self, attempt: Attempt) -> State | None:
        """Record the outcome; retry until the database has it or the process stops.

        A lost outcome would send the alert again, or put it in doubt. Until then its message stays
        in flight. If another worker takes over all the same, the CAS decides.

        :returns: the row's state now; None when another worker has taken over
        """
        self._unrecorded.add(attempt.job.alert_id)
        plain = attempt.job.once is None and attempt.want is None
        try:
            while True:
                with postgres.through_outages():
                    if plain and attempt.transition.state is not State.FAILED:
                        return await self._outcomes.submit(attempt)
                    return await self._record_and_notify(attempt)
                await asyncio.sleep(RETRY_DATABASE_SECONDS)
        finally:
            self._unrecorded.discard(attempt.job.alert_id)

    async def _record_batch(self, attempts: Sequence[Attempt]) -> list[State | None]:
        async with alone(self.engine) as tx:
            return await transitions.record(tx, attempts)

    async def _record_and_notify(self, attempt: Attempt) -> State | None:
        job, outcome, transition = attempt.job, attempt.outcome, attempt.transition
        async with self.engine.begin() as tx:
            (state,) = await transitions.record(tx, [attempt])
            if state is None:
                return None
            if job.once is not None and transition.state is not State.IN_DOUBT:
                await ending.return_permit(tx, job.alert_id, job.attempt, job.once)
            if attempt.want is not None and state is State.DELIVERED:
                shown_at = case_messages.shown_at(job)
                await places.run(
                    tx, "shown", alert_id=shown_at, target=self.name, want=attempt.want,
                    receipt=outcome.receipt,
                )  # fmt: skip
            if state is transition.state is not State.PENDING:  # it was not recalled in flight
                ended = Ended(
                    job.alert_id,
                    self.name,
                    job.attempt,
                    job.event_type,
                    transitions.error_text(outcome),
                    job.once,
                )
                await ending.notify(tx, ended, transition.state, transition.reason)
            return state

    async def _retry_later(self, message: Message, delay: float, reason: str) -> Disposition:
        """Send the message to the queue that delays it by this many seconds."""
        if self.target.waits_in_ledger:
            return Ack()
        apart = topology.APART if message.priority == HIGH else ""
        if delay == self.target.retry_delays[0] and not apart:
            return Retry(reason)
        queue = delay_name(topology.work_name(self.name) + apart, math.ceil(delay))
        try:
            await self.broker.publish(topology.DLX.name, queue, replace(message, headers={}))
        except PublishError:
            return Retry(reason)  # it returns too early or too late; the row's due time corrects it
        return Ack()

    async def _fenced(self, job: Claimed, receipt: Mapping[str, str] | None = None) -> Disposition:
        """Acknowledge only over an ended row: the worker that took over may have no message."""
        log.info("delivery.fenced", alert_id=str(job.alert_id), attempt=job.attempt)
        async with alone(self.engine) as tx:
            if job.event_type in messages.CASE_EVENTS or job.event_type in self.rules.policies:
                shown_at = case_messages.shown_at(job)
                await places.run(tx, "rearm", alert_id=shown_at, target=self.name, receipt=receipt)
            seen = await transitions.see(tx, job.alert_id, self.name)
        action = alert.unclaimed(seen, generation=job.generation, retries=self._retries)
        return Ack() if action is Unclaimed.ACK else Retry("fenced")
