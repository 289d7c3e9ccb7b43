"""Protocol A's worker on a real ledger, with a target of the test's own."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Message, Unconfirmed
from libs.common.messaging.consumer import Ack, Consumer, Disposition, Requeue, Retry
from libs.common.process import tasks
from services.alerts import messages
from services.alerts.channels import Channel
from services.alerts.channels.slack import SlackTarget
from services.alerts.delivery.worker import Worker
from services.alerts.rules import delivery as rules
from services.alerts.store import tables
from services.alerts.store.ledger import transitions
from services.alerts.store.ledger.transitions import Attempt
from services.alerts.targets.breaker import Breaker
from services.alerts.targets.throttle import Throttle
from tests.integration.alerts.test_store import DEAD_AT_ONCE, new_row
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P1")

TAKEN = rules.Outcome(rules.Kind.DELIVERED, rules.Reason.OK, 200)
POLICY = rules.Policy(retry_delays=(300,), wait_tiers=(), max_age=3600)


class Slow:
    """A target that responds after another worker has taken over."""

    def __init__(self, engine: AsyncEngine, *, ends: bool) -> None:
        self._engine = engine
        self._ends = ends

    async def send(self, job: rules.Claimed) -> rules.Outcome:
        newer = await eventually(lambda: self._taken_over(job))
        if self._ends:
            transition = rules.decide(TAKEN, attempts=2, age=0, policy=POLICY)
            async with self._engine.begin() as tx:
                assert await transitions.record(tx, [Attempt(newer, TAKEN, transition, 0.1)]) == [
                    rules.State.DELIVERED
                ]
        return TAKEN

    async def _taken_over(self, job: rules.Claimed) -> Any:
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
    broker = settings.pop("broker", nothing)
    target = SlackTarget.model_construct(retry_delays=(300,), **settings)
    throttle = Throttle(breaker, concurrency=target.concurrency)
    throttle.follow(0, 1)
    worker = Worker("slack", target, channel, breaker, throttle, engine, broker)
    return worker, throttle


async def handle(worker: Worker, alert_id: UUID, generation: int = 0) -> Disposition:
    message = messages.work(alert_id, "slack", generation, None)
    return await worker.handle(message)


class Held:
    """A target that responds when the test allows it."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[UUID] = asyncio.Queue()
        self.may_answer = asyncio.Semaphore(0)

    async def send(self, job: rules.Claimed) -> rules.Outcome:
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
    ids = [await new_row(engine, target="slack") for _ in range(2)]
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


async def test_takeover_does_not_count_as_a_second_half_open_trial(engine: AsyncEngine) -> None:
    target, breaker = Held(), Breaker("slack", fail_max=1, reset_timeout=0)
    worker, _ = a_worker(engine, target, breaker, concurrency=2)
    ids = [await new_row(engine, target="slack") for _ in range(2)]
    async with engine.begin() as tx:
        asked = [(alert_id, 0) for alert_id in ids]
        await transitions.claim(tx, "slack", asked, lease=DEAD_AT_ONCE, retries=5)
    tries = [asyncio.create_task(handle(worker, each)) for each in ids]
    taken = await target.asked.get()  # both are admitted by now: nothing is awaited before that

    failed = breaker.admit()
    assert failed is not None
    failed.kind = rules.Kind.FAILED
    breaker.record(failed)
    breaker.follow(rules.BreakerState.HALF_OPEN, 15, mine=True)
    assert breaker.admit() is not None
    assert breaker.state is rules.BreakerState.HALF_OPEN

    target.may_answer.release()
    target.may_answer.release()  # if the second were sent, it would get a response
    assert {type(await each) for each in tries} == {Ack, Requeue}
    (left,) = set(ids) - {taken}
    async with engine.connect() as tx:
        seen = await transitions.see(tx, left, "slack")
    assert seen is not None
    assert (seen.state, seen.attempts) == (rules.State.SENDING, 1)


class Published:
    """A broker that keeps what is published, by its routing key; it confirms what it may."""

    def __init__(self, *, confirms: bool = True) -> None:
        self.sent: list[tuple[str, Message]] = []
        self.failure = None if confirms else Unconfirmed()

    def encode(self, message: Message) -> Message:
        return message

    async def send_all(
        self, _: str, key: str, sent: Sequence[Message], **__: object
    ) -> list[Unconfirmed | None]:
        self.sent += [(key, each) for each in sent]
        return [self.failure] * len(sent)


def together(*ids: UUID) -> Message:
    return messages.works([messages.work(each, "slack", 0, None) for each in ids])


def ids_of(message: Message) -> list[UUID]:
    works = messages.each_work(message) if message.type == messages.ALERT_WORKS else [message]
    return [UUID(str(each.body["alert_id"])) for each in works]


@pytest.mark.parametrize("confirms", [True, False])
async def test_each_row_of_a_batch_is_handled_by_its_own_state(
    engine: AsyncEngine, *, confirms: bool
) -> None:
    target, broker = Held(), Published(confirms=confirms)
    worker, _ = a_worker(engine, target, broker=broker)
    ended, leased, new = [await new_row(engine, target="slack") for _ in range(3)]
    target.may_answer.release()
    target.may_answer.release()
    assert await handle(worker, ended) == Ack()
    async with engine.begin() as tx:
        assert all(await transitions.claim(tx, "slack", [(leased, 0)], lease=60, retries=5))
    done = await worker.handle(together(ended, leased, new))
    assert done == (Ack() if confirms else Retry("Unconfirmed"))
    assert [target.asked.get_nowait(), target.asked.get_nowait()] == [ended, new]
    assert [(key, ids_of(sent)) for key, sent in broker.sent] == [("alerts.slack.retry", [leased])]
    assert await worker.handle(together(ended, new)) == Ack()  # it comes again
    assert await worker.handle(together(leased, leased)) == Retry("parked")  # as a whole
    assert len(broker.sent) == 1
    assert target.asked.empty()


async def test_a_stop_requeues_only_what_of_a_batch_has_not_begun(engine: AsyncEngine) -> None:
    target, broker = Held(), Published()
    worker, throttle = a_worker(engine, target, broker=broker, concurrency=1)
    ids = [await new_row(engine, target="slack") for _ in range(4)]
    batch, whole = (asyncio.create_task(worker.handle(together(*some))) for some in (ids[:3], ids))
    assert await target.asked.get() == ids[0]
    running = asyncio.create_task(throttle.run(cast("Consumer", Stopping())))
    await asyncio.sleep(0)
    for _ in ids:
        target.may_answer.release()
    assert [await batch, await whole] == [Ack(), Requeue()]
    assert [(key, ids_of(sent)) for key, sent in broker.sent] == [("alerts.slack", ids[1:3])]
    await tasks.end(running)
    assert target.asked.empty()


async def test_a_process_handles_no_more_rows_than_it_takes_messages(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, _ = a_worker(engine, Held(), concurrency=2)
    under_way, most = 0, 0

    async def counted(_: Message) -> Disposition:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return Ack()

    monkeypatch.setattr(worker, "_handle", counted)
    batches = [together(*(uuid4() for _ in range(3))) for _ in range(5)]
    assert await asyncio.gather(*map(worker.handle, batches)) == [Ack()] * 5
    assert most == worker.target.prefetch


async def test_an_error_of_one_row_is_raised_when_the_others_have_ended(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, broker = Held(), Published()
    worker, _ = a_worker(engine, target, broker=broker)
    bad, good = [await new_row(engine, target="slack") for _ in range(2)]
    attempt = worker._attempt

    async def failing(job: rules.Claimed, *given: Any) -> Attempt:
        if job.alert_id == bad:
            raise ValueError("a fault of ours")
        return await attempt(job, *given)

    monkeypatch.setattr(worker, "_attempt", failing)
    asyncio.get_running_loop().call_later(0.2, target.may_answer.release)
    with pytest.raises(ValueError, match="of ours"):
        await worker.handle(together(bad, good))
    async with engine.connect() as tx:
        seen = await transitions.see(tx, good, "slack")
    assert seen is not None
    assert seen.state is rules.State.DELIVERED
