"""Protocol A's worker on a real ledger, with a target of the test's own."""

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.consumer import Ack, Consumer, Disposition, Requeue, Retry
from libs.common.process import tasks
from services.alerts import messages
from services.alerts.channels import Channel
from services.alerts.channels.slack import SlackTarget
from services.alerts.delivery.worker import Worker
from services.alerts.rules.delivery import (
    BreakerState,
    Claimed,
    Kind,
    Outcome,
    Policy,
    Reason,
    State,
    decide,
)
from services.alerts.store import tables
from services.alerts.store.ledger import transitions
from services.alerts.store.ledger.transitions import Attempt
from services.alerts.targets.breaker import Breaker
from services.alerts.targets.throttle import Throttle
from tests.integration.alerts.test_store import DEAD_AT_ONCE, new_row
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P1")

TAKEN = Outcome(Kind.DELIVERED, Reason.OK, 200)
POLICY = Policy(retry_delays=(300,), wait_tiers=(), max_age=3600)


class Slow:
    """A target that responds after another worker has taken over."""

    def __init__(self, engine: AsyncEngine, *, ends: bool) -> None:
        self._engine = engine
        self._ends = ends

    async def send(self, job: Claimed) -> Outcome:
        newer = await eventually(lambda: self._taken_over(job))
        if self._ends:
            transition = decide(TAKEN, attempts=2, age=0, policy=POLICY)
            async with self._engine.begin() as tx:
                assert await transitions.record(tx, [Attempt(newer, TAKEN, transition, 0.1)]) == [
                    State.DELIVERED
                ]
        return TAKEN

    async def _taken_over(self, job: Claimed) -> Any:
        async with self._engine.begin() as tx:
            (newer,) = await transitions.claim(
                tx, "slack", [(job.alert_id, job.generation)], lease=60, retries=5, take_over=True
            )
        return newer

    async def close(self) -> None:
        pass


def a_worker(
    engine: AsyncEngine, channel: Channel, breaker: Breaker | None = None, **settings: Any
) -> tuple[Worker, Throttle]:
    nothing: Any = None
    breaker = breaker or Breaker("slack", fail_max=5, reset_timeout=60)
    target = SlackTarget.model_construct(retry_delays=(300,), **settings)
    throttle = Throttle(breaker, concurrency=target.concurrency)
    worker = Worker("slack", target, channel, breaker, throttle, engine, nothing)
    return worker, throttle


async def handle(worker: Worker, alert_id: UUID, generation: int = 0) -> Disposition:
    message = messages.work(alert_id, "slack", generation, None)
    return await worker.handle(message)


@pytest.mark.parametrize(("ends", "expected"), [(False, Retry("fenced")), (True, Ack())])
async def test_a_fenced_worker_acknowledges_only_over_an_ended_row(
    engine: AsyncEngine, *, ends: bool, expected: Ack | Retry
) -> None:
    worker, _ = a_worker(engine, Slow(engine, ends=ends), timeout=0.005, margin=0.005)
    assert await handle(worker, await new_row(engine, target="slack")) == expected


class Held:
    """A target that responds when the test allows it."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[UUID] = asyncio.Queue()
        self.may_answer = asyncio.Semaphore(0)

    async def send(self, job: Claimed) -> Outcome:
        self.asked.put_nowait(job.alert_id)
        await self.may_answer.acquire()
        return TAKEN

    async def close(self) -> None:
        pass


class Stopping:
    """Stands in for the consumer."""

    consuming = False

    async def resume(self) -> None:
        pass


async def test_a_sent_alert_frees_its_slot_before_it_is_recorded(engine: AsyncEngine) -> None:
    target = Held()
    worker, _ = a_worker(engine, target, concurrency=1)
    ids = [await new_row(engine, target="slack"), await new_row(engine, target="slack")]
    first, second = (asyncio.create_task(handle(worker, each)) for each in ids)
    async with asyncio.timeout(10), engine.begin() as tx:
        assert await target.asked.get() == ids[0]
        await tx.execute(
            sa.select(tables.delivery.c.alert_id)
            .where(tables.delivery.c.alert_id == ids[0])
            .with_for_update()
        )
        target.may_answer.release()
        assert await target.asked.get() == ids[1]
        assert not first.done()
    target.may_answer.release()
    assert [await first, await second] == [Ack(), Ack()]


async def test_a_message_that_waits_for_a_slot_is_unclaimed_and_requeued_at_a_stop(
    engine: AsyncEngine,
) -> None:
    target = Held()
    worker, throttle = a_worker(engine, target, concurrency=1)
    ids = [await new_row(engine, target="slack"), await new_row(engine, target="slack")]
    first, second = (asyncio.create_task(handle(worker, each)) for each in ids)
    assert await target.asked.get() == ids[0]
    running = asyncio.create_task(throttle.run(cast("Consumer", Stopping())))
    await asyncio.sleep(0)  # one step of the loop is enough
    target.may_answer.release()
    target.may_answer.release()  # if the second were sent, it would get a response
    assert [await first, await second] == [Ack(), Requeue()]
    await tasks.end(running)
    async with engine.connect() as tx:
        seen = await transitions.see(tx, ids[1], "slack")
    assert seen is not None
    assert (seen.state, seen.attempts) == (State.PENDING, 0)


async def test_takeover_does_not_count_as_a_second_half_open_trial(engine: AsyncEngine) -> None:
    target, breaker = Held(), Breaker("slack", fail_max=1, reset_timeout=0)
    worker, _ = a_worker(engine, target, breaker, concurrency=2)
    ids = [await new_row(engine, target="slack"), await new_row(engine, target="slack")]
    async with engine.begin() as tx:
        asked = [(alert_id, 0) for alert_id in ids]
        await transitions.claim(tx, "slack", asked, lease=DEAD_AT_ONCE, retries=5)
    tries = [asyncio.create_task(handle(worker, each)) for each in ids]
    taken = await target.asked.get()  # both are admitted by now: nothing is awaited before that

    failed = breaker.admit()
    assert failed is not None
    failed.kind = Kind.FAILED
    breaker.record(failed)
    assert breaker.admit() is not None
    assert breaker.state is BreakerState.HALF_OPEN

    target.may_answer.release()
    target.may_answer.release()  # if the second were sent, it would get a response
    assert {type(await each) for each in tries} == {Ack, Requeue}
    (left,) = set(ids) - {taken}
    async with engine.connect() as tx:
        seen = await transitions.see(tx, left, "slack")
    assert seen is not None
    assert (seen.state, seen.attempts) == (State.SENDING, 1)
