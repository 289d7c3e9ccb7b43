"""What a worker that was overtaken answers to RabbitMQ; the ledger is real, the target is ours."""

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import tasks
from libs.common.consume import Ack, Consumer, Delivery, Requeue, Retry
from libs.common.consume import Outcome as Verdict
from services.alerts import messages
from services.alerts.alert import (
    BreakerState,
    Claimed,
    Kind,
    Outcome,
    Policy,
    Reason,
    State,
    decide,
)
from services.alerts.breaker import Breaker
from services.alerts.channels import Channel
from services.alerts.config import SlackTarget
from services.alerts.delivery import Worker
from services.alerts.store import steps, tables
from services.alerts.store.steps import Tried
from services.alerts.valve import Valve
from tests.integration.alerts.test_store import DEAD_AT_ONCE, new_row
from tests.support.eventually import eventually

TAKEN = Outcome(Kind.DELIVERED, Reason.OK, 200)
POLICY = Policy(retry_delays=(300,), wait_tiers=(), max_age=3600)


class Slow:
    """A target that answers when the lease is over and another worker has the alert."""

    def __init__(self, engine: AsyncEngine, *, ends: bool) -> None:
        self._engine = engine
        self._ends = ends

    async def send(self, job: Claimed) -> Outcome:
        newer = await eventually(lambda: self._taken_over(job))
        if self._ends:
            decision = decide(TAKEN, spent=2, age=0, policy=POLICY)
            async with self._engine.begin() as tx:
                assert await steps.settle(tx, [Tried(newer, TAKEN, decision, 0.1)]) == [True]
        return TAKEN

    async def _taken_over(self, job: Claimed) -> Any:
        async with self._engine.begin() as tx:
            (newer,) = await steps.claim(
                tx, "slack", [(job.alert_id, job.turn)], lease=60, retries=5, take_over=True
            )
        return newer

    async def close(self) -> None:
        pass


def a_worker(
    engine: AsyncEngine, channel: Channel, breaker: Breaker | None = None, **settings: Any
) -> tuple[Worker, Valve]:
    nothing: Any = None
    breaker = breaker or Breaker("slack", fail_max=5, reset_timeout=60)
    target = SlackTarget.model_construct(retry_delays=(300,), **settings)
    valve = Valve(breaker)
    worker = Worker(
        "slack", target, channel, breaker, valve, engine=engine, broker=nothing, permits=nothing
    )
    return worker, valve


async def handle(worker: Worker, alert_id: UUID) -> Verdict:
    message = messages.work(alert_id, "slack", 0, None)
    return await worker.handle(message, Delivery(redelivered=False, death_count=0))


@pytest.mark.parametrize(("ends", "verdict"), [(False, Retry("fenced")), (True, Ack())])
async def test_a_worker_that_was_overtaken_gives_its_copy_up_only_where_the_alert_has_ended(
    engine: AsyncEngine, *, ends: bool, verdict: Ack | Retry
) -> None:
    worker, _ = a_worker(engine, Slow(engine, ends=ends), timeout=0.005, margin=0.005)
    assert await handle(worker, await new_row(engine, target="slack")) == verdict


class Held:
    """A target that answers when it may."""

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
    """Stands where the consumer is."""

    consuming = False

    async def resume(self) -> None:
        pass


async def test_what_was_sent_makes_room_before_it_is_written_down(engine: AsyncEngine) -> None:
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


async def test_what_waits_for_its_place_is_not_claimed_and_a_stop_gives_it_back(
    engine: AsyncEngine,
) -> None:
    target = Held()
    worker, valve = a_worker(engine, target, concurrency=1)
    ids = [await new_row(engine, target="slack"), await new_row(engine, target="slack")]
    first, second = (asyncio.create_task(handle(worker, each)) for each in ids)
    assert await target.asked.get() == ids[0]
    running = asyncio.create_task(valve.run(cast("Consumer", Stopping())))
    await asyncio.sleep(0)  # one step of the loop is all that it takes
    target.may_answer.release()
    target.may_answer.release()  # were the second sent, it would be answered
    assert [await first, await second] == [Ack(), Requeue()]
    await tasks.end(running)
    async with engine.connect() as tx:
        seen = await steps.see(tx, ids[1], "slack")
    assert seen is not None
    assert (seen.state, seen.spent) == (State.PENDING, 0)


async def test_what_waits_to_be_taken_over_is_no_second_trial_of_a_breaker_that_opened_meanwhile(
    engine: AsyncEngine,
) -> None:
    target, breaker = Held(), Breaker("slack", fail_max=1, reset_timeout=0)
    worker, _ = a_worker(engine, target, breaker, concurrency=2)
    ids = [await new_row(engine, target="slack"), await new_row(engine, target="slack")]
    async with engine.begin() as tx:
        asked = [(alert_id, 0) for alert_id in ids]
        await steps.claim(tx, "slack", asked, lease=DEAD_AT_ONCE, retries=5)
    tries = [asyncio.create_task(handle(worker, each)) for each in ids]
    taken = await target.asked.get()  # both are admitted by now: nothing is awaited before

    failed = breaker.admit()
    assert failed is not None
    failed.kind = Kind.FAILED
    breaker.settle(failed)
    assert breaker.admit() is not None
    assert breaker.state is BreakerState.HALF_OPEN

    target.may_answer.release()
    target.may_answer.release()  # were the second sent, it would be answered
    assert {type(await each) for each in tries} == {Ack, Requeue}
    (left,) = set(ids) - {taken}
    async with engine.connect() as tx:
        seen = await steps.see(tx, left, "slack")
    assert seen is not None
    assert (seen.state, seen.spent) == (State.SENDING, 1)
