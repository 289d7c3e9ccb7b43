import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import aiormq
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from libs.common.messaging.broker import HIGH, Broker, Message, Unroutable, message
from libs.common.messaging.consumer import Ack, Consumer, Dead, Disposition, Requeue, Retry
from libs.common.messaging.topology import Binding, request_queue, work_queue
from libs.common.process import logs
from tests.integration.common.conftest import ALERTS, DLX, QUEUE, recorded
from tests.support.brokers import Vhost
from tests.support.consumers import Recorder, depth, until
from tests.support.eventually import becomes, eventually

DEAD = f"{QUEUE}.dead"
AWAY = PoolTimeoutError()  # what a handler raises when its database is away


async def send(broker: Broker, count: int = 1) -> list[str]:
    sent = [message("test", {"number": number}) for number in range(count)]
    await asyncio.gather(*(broker.publish("alerts", QUEUE, one) for one in sent))
    return [one.id for one in sent]


async def gone(broker: Broker, queue: str = QUEUE) -> bool:
    return await depth(broker, queue) == 0


@pytest.fixture
async def dead(broker: Broker) -> AsyncIterator[Recorder]:
    """What arrives in `.dead`."""
    recorder = Recorder()
    async with Consumer(broker, DEAD, recorder, prefetch=10):
        yield recorder


class Gate:
    """A handler that stays at work until it is let go."""

    def __init__(self) -> None:
        self.entered = 0
        self.changed = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, _: Message) -> Disposition:
        self.entered += 1
        self.changed.set()
        await self.open.wait()
        return Ack()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.entered < count:
                self.changed.clear()
                await self.changed.wait()


async def test_a_retried_message_waits_in_retry_and_returns(broker: Broker, vhost: Vhost) -> None:
    vhost.set_retry(r"\.retry$", 1)
    (sent,) = await send(broker)
    async with recorded(broker, Retry("one"), Retry("two")) as got:
        await got.until_count(1)
        await becomes(lambda: depth(broker, f"{QUEUE}.retry"), 1)
        await got.until_count(3)
    assert got.ids == [sent] * 3


async def test_a_dead_message_keeps_its_reason_and_body(broker: Broker, dead: Recorder) -> None:
    sent = message("test", {"number": 1}, request_id="request-1", headers={"x-own": "1"})
    await broker.publish("alerts", QUEUE, sent)
    async with Consumer(broker, QUEUE, Recorder(Retry("once"), Dead("malformed")), prefetch=1):
        await dead.until_count(1)
    (buried,) = dead.messages
    assert (buried.id, buried.type, buried.body) == (sent.id, sent.type, sent.body)
    assert buried.request_id == "request-1"
    assert buried.headers["x-reason"] == "malformed"
    assert buried.headers["x-own"] == "1"
    assert await gone(broker)


async def test_a_dead_message_waits_for_its_missing_queue(broker: Broker, vhost: Vhost) -> None:
    vhost.call("DELETE", "queues", DEAD)
    (sent,) = await send(broker)
    handler, dead = Recorder(*[Dead("malformed")] * 50), Recorder()
    async with Consumer(broker, QUEUE, handler, prefetch=1):
        await handler.until_count(2)  # it came back, and the queue is declared again meanwhile
        async with Consumer(broker, DEAD, dead, prefetch=1):
            await dead.until_count(1)
    assert dead.ids == [sent]


class NoText(str):
    """A header's text that is no UTF-8."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        return b"\xff"


@pytest.mark.parametrize(
    "headers",
    [{"x-death": [{"queue": QUEUE, "reason": "rejected", "count": "x"}]}, {"x": NoText()}],
)
async def test_malformed_headers_do_not_block_a_message(
    broker: Broker, headers: dict[str, Any]
) -> None:
    channel = await (await broker.session()).consuming.channel()
    exchange = await channel.get_exchange("alerts", ensure=False)
    strange = aio_pika.Message(b"{}", message_id="strange", type="test", headers=headers)
    await exchange.publish(strange, QUEUE)
    (sent,) = await send(broker)
    async with recorded(broker, Dead("malformed"), Dead("malformed")) as got:
        await got.until(lambda: {"strange", sent} <= set(got.ids))


async def test_a_message_requeued_beyond_the_delivery_limit_is_parked_and_not_lost(
    broker: Broker,
) -> None:
    # RabbitMQ's own limit would dead-letter it into `.retry`, and there it would stay.
    (sent,) = await send(broker)
    async with recorded(broker, *[Requeue()] * 30) as got:
        await got.until_count(31)
    assert got.ids == [sent] * 31
    assert ["x-death" in message.headers for message in got.messages] == [False] * 21 + [True] * 10


async def test_a_message_that_kills_its_process_ends_in_dead(broker: Broker) -> None:
    poison = work_queue("alerts.poison", exchange=ALERTS, dlx=DLX, delivery_limit=1)
    await broker.declare(*poison)
    tried = 0

    async def die(_: Message) -> Disposition:
        nonlocal tried
        tried += 1
        await (await broker.session()).close()
        return Ack()

    buried = Recorder()
    await broker.publish("alerts", "alerts.poison", message("test", {}))
    async with (
        Consumer(broker, "alerts.poison", die, prefetch=1, max_retries=1),
        Consumer(broker, "alerts.poison.dead", buried, prefetch=1),
    ):
        await buried.until_count(1, seconds=40)
    assert tried == 2
    assert buried.messages[0].headers["x-reason"] == "delivery limit"


async def test_an_unexpected_exception_is_retried_and_ends_in_dead(
    broker: Broker, dead: Recorder
) -> None:
    await send(broker)
    async with recorded(broker, *[ZeroDivisionError()] * 10, max_retries=2) as got:
        await dead.until_count(1)
    assert len(got.messages) == 3
    assert dead.messages[0].headers["x-reason"] == "ZeroDivisionError"
    assert "x-failures" not in dead.messages[0].headers  # moved back, it has all its tries


async def test_a_retry_by_the_handler_does_not_count_as_a_failure(
    broker: Broker, dead: Recorder
) -> None:
    (sent,) = await send(broker)
    async with recorded(
        broker, *[Retry("not yet")] * 5, ZeroDivisionError(), prefetch=1, max_retries=1
    ) as got:
        await got.until_count(7)
        assert await gone(broker)
    assert got.ids == [sent] * 7
    assert not dead.messages


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (b"{", {"message_id": "1", "type": "test"}),
        (b"[]", {"message_id": "1", "type": "test"}),
        (b'{"a": NaN}', {"message_id": "1", "type": "test"}),
        (b"[" * 100_000, {"message_id": "1", "type": "test"}),
        (b"\xff", {"message_id": "1", "type": "test"}),
        (b"{}", {"type": "test"}),
        (b"{}", {"message_id": "1"}),
    ],
)
async def test_a_foreign_message_goes_to_dead_unread(
    broker: Broker, vhost: Vhost, body: bytes, properties: dict[str, str]
) -> None:
    got = Recorder()
    raw = aio_pika.Message(body, **properties)  # type: ignore[arg-type]
    if raw.message_id is None:  # aiormq would make one
        payload = {
            "routing_key": QUEUE,
            "payload": body.decode(),
            "payload_encoding": "string",
            "properties": properties,
        }
        vhost.call("POST", "exchanges", "alerts/publish", payload)
    else:
        await broker.publish("alerts", QUEUE, raw, timeout=5)
    async with Consumer(broker, QUEUE, got, prefetch=1):
        await becomes(lambda: depth(broker, DEAD), 1)
    assert not got.messages


async def test_a_request_that_expired_is_gone_and_a_bad_one_is_in_dead(broker: Broker) -> None:
    queues = request_queue("alerts.requests", dlx=DLX, bindings=(Binding(ALERTS, "request"),))
    await broker.declare(*queues)
    await broker.publish("alerts", "request", message("test", {}, expiration=0.01))
    await eventually(lambda: gone(broker, "alerts.requests"))
    bad, buried = Recorder(Retry("dropped"), Dead("malformed")), Recorder()
    async with (
        Consumer(broker, "alerts.requests", bad, prefetch=1),
        Consumer(broker, "alerts.requests.dead", buried, prefetch=1),
    ):
        for _ in range(2):
            await broker.publish("alerts", "request", message("test", {}))
        await buried.until_count(1)
    assert len(bad.messages) == 2
    assert buried.ids == bad.ids[1:]


async def test_the_handler_works_under_the_messages_request_id(broker: Broker) -> None:
    seen: list[str | None] = []

    async def look(_: Message) -> Disposition:
        seen.append(logs.request_id.get())
        return Ack()

    async with Consumer(broker, QUEUE, look, prefetch=1):
        for request_id in ("a", "b", None):
            await broker.publish("alerts", QUEUE, message("test", {}, request_id=request_id))
        await until(lambda: len(seen) == 3)
    assert seen == ["a", "b", None]


async def test_no_more_than_the_prefetch_are_in_flight(broker: Broker) -> None:
    await send(broker, 20)
    gate = Gate()
    async with Consumer(broker, QUEUE, gate, prefetch=3):
        await gate.until(3)
        assert await depth(broker, QUEUE) == 17
        assert gate.entered == 3
        gate.open.set()
        await gate.until(20)


async def test_large_messages_are_handled_few_at_a_time_and_none_waits_for_ever(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.consumer.IN_FLIGHT_BYTES", 1000)
    for size in (400, 400, 5000, 10, 10, 10):
        await broker.publish("alerts", QUEUE, message("test", {"text": "x" * size}))
    handled: list[int] = []
    gates = {size: asyncio.Event() for size in (400, 5000, 10)}

    async def hold(message: Message) -> Disposition:
        size = len(message.body["text"])
        handled.append(size)
        await gates[size].wait()
        return Ack()

    async with Consumer(broker, QUEUE, hold, prefetch=10):
        await until(lambda: len(handled) == 2)
        await asyncio.sleep(0.5)  # time enough for all the others
        assert handled == [400, 400]
        gates[400].set()
        await until(lambda: len(handled) == 3)
        await asyncio.sleep(0.5)
        assert handled == [400, 400, 5000]  # alone, and before what came after it
        gates[5000].set()
        await until(lambda: len(handled) == 6)
        gates[10].set()
        await eventually(lambda: gone(broker))


async def test_a_paused_consumer_finishes_messages_in_flight_and_takes_no_more(
    broker: Broker,
) -> None:
    await send(broker, 5)
    gate = Gate()
    async with Consumer(broker, QUEUE, gate, prefetch=2) as consumer:
        await gate.until(2)
        await consumer.pause()
        assert not consumer.consuming
        gate.open.set()
        await becomes(lambda: depth(broker, QUEUE), 3)
        assert gate.entered == 2
        await consumer.resume()
        await gate.until(5)


async def test_a_consumer_resumed_with_one_tries_one_even_with_many_waiting(broker: Broker) -> None:
    await send(broker, 100)
    gate = Gate()
    async with Consumer(broker, QUEUE, gate, prefetch=10) as consumer:
        await consumer.pause()
        await consumer.resume(prefetch=1)
        await gate.until(1)
        assert await depth(broker, QUEUE) == 99
        await consumer.resume()
        await gate.until(11)  # the one, and ten more on the consumer that replaced its
        gate.open.set()
        await gate.until(100)


async def test_messages_for_a_paused_consumer_are_requeued_after_its_cancel(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given back while still subscribed, it would come again at once, and wear out.
    cancelling, go_on = asyncio.Event(), asyncio.Event()
    cancel = aiormq.Channel.basic_cancel

    async def late(*arguments: Any, **named: Any) -> None:
        cancelling.set()
        await go_on.wait()
        await cancel(*arguments, **named)

    monkeypatch.setattr(aiormq.Channel, "basic_cancel", late)
    got = Recorder()
    async with Consumer(broker, QUEUE, got, prefetch=5) as consumer:
        await until(lambda: consumer.consuming)
        await consumer.pause()
        await cancelling.wait()
        sent = await send(broker, 5)
        await until(lambda: len(next(iter(consumer._subscriptions)).in_flight) == 5)
        await send(broker)  # the round trip in which it would go back and forth
        go_on.set()
        await becomes(lambda: depth(broker, QUEUE), 6)
        assert not got.messages
        await consumer.resume()
        await got.until_count(6)
    returns = [m.headers.get("x-delivery-count", 0) for m in got.messages if m.id in sent]
    assert returns == [1] * 5


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two looks at a database that is away; after three, by way of `.retry`."""
    monkeypatch.setattr("libs.common.messaging.consumer._DATABASE_SECONDS", (0.05,) * 3)


class Refused(Exception):  # noqa: N818 - reads as what happened
    """What PostgreSQL says while it takes nothing."""

    def __init__(self, pgcode: str) -> None:
        self.pgcode = pgcode


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "refusal",
    [AWAY, *(OperationalError("INSERT", None, Refused(code)) for code in ("57014", "25006"))],
    ids=["away", "slow", "read-only"],
)
async def test_a_long_database_outage_sends_no_message_to_dead_and_counts_no_failure(
    broker: Broker, dead: Recorder, refusal: Exception
) -> None:
    sent = await send(broker, 5)
    async with recorded(
        broker, *[refusal] * 100, ZeroDivisionError(), prefetch=10, max_retries=1
    ) as got:
        await got.until_count(106)
        assert await gone(broker)
    assert set(got.ids) == set(sent)
    deaths: list[Any] = [
        each for message in got.messages for each in message.headers.get("x-death", [])
    ]
    assert max(death["count"] for death in deaths if death["queue"] == QUEUE) > 1
    assert not dead.messages


async def test_messages_that_wait_for_the_database_stay_in_flight(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.consumer._DATABASE_SECONDS", (0.05,) * 1000)
    sent = await send(broker, 30)
    async with recorded(broker, *[AWAY] * 200, prefetch=10, max_retries=0) as got:
        await got.until_count(200)
        assert len(set(got.ids)) == 10
        assert await depth(broker, QUEUE) == 20
        await got.until(lambda: len(got.ids) == 230)
    assert set(got.ids) == set(sent)
    assert not any(each.redelivered for each in got.messages)


async def test_a_stop_without_the_database_does_not_wait(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.consumer._DATABASE_SECONDS", (60.0,))
    session = await broker.session()
    await send(broker)
    got = Recorder(AWAY)
    async with Consumer(broker, QUEUE, got, prefetch=1), asyncio.timeout(10):
        await got.until_count(1)
    await becomes(lambda: depth(broker, QUEUE), 1)
    assert await broker.session() is session


async def test_a_stop_that_misses_the_consume_reply_leaves_no_consumer(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, close = aiormq.Channel.basic_consume, aio_pika.Channel.close
    left: list[str] = []

    async def unanswered(*arguments: Any, **named: Any) -> None:
        await begin(*arguments, **named)
        await asyncio.Event().wait()

    async def noted(channel: aio_pika.Channel, *arguments: Any) -> None:
        underlay: Any = await channel.get_underlay_channel()
        left.extend(underlay.consumers)
        await close(channel, *arguments)

    monkeypatch.setattr(aiormq.Channel, "basic_consume", unanswered)
    monkeypatch.setattr(aio_pika.Channel, "close", noted)
    async with recorded(broker) as got:
        await send(broker)
        await got.until_count(1)
    assert not left


@pytest.mark.usefixtures("at_once")
async def test_a_connection_lost_during_a_database_outage_leaves_no_consumer_waiting(
    broker: Broker,
) -> None:
    await send(broker)
    async with recorded(broker, *[AWAY] * 3) as got:
        await got.until_count(1)
        await (await broker.session()).close()
        await got.until_count(4)
        assert await gone(broker)


async def test_a_handler_cancelled_by_a_library_gets_its_message_again(broker: Broker) -> None:
    (sent,) = await send(broker)
    seen: list[str] = []

    async def cancelled_once(message: Message) -> Disposition:
        seen.append(message.id)
        if len(seen) == 1:
            raise asyncio.CancelledError
        return Ack()

    async with Consumer(broker, QUEUE, cancelled_once, prefetch=1):
        await until(lambda: len(seen) == 2)
    assert seen == [sent, sent]
    assert await gone(broker)


async def test_a_stop_finishes_messages_in_flight_and_loses_none(broker: Broker) -> None:
    sent = await send(broker, 10)
    done: list[str] = []
    started = asyncio.Event()

    async def work(message: Message) -> Disposition:
        started.set()
        await asyncio.sleep(0.1)
        done.append(message.id)
        return Ack()

    async with Consumer(broker, QUEUE, work, prefetch=4):
        await started.wait()
    assert 1 <= len(done) < 10
    async with recorded(broker, prefetch=10) as rest:
        await rest.until_count(10 - len(done))
    assert sorted(done + rest.ids) == sorted(sent)


async def test_a_stop_requeues_messages_not_finished_in_time(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.consumer.DRAIN_SECONDS", 0.1)
    sent = await send(broker)
    gate = Gate()
    async with Consumer(broker, QUEUE, gate, prefetch=1):
        await gate.until(1)
    async with recorded(broker) as rest:
        await rest.until_count(1)
    assert rest.ids == sent
    assert rest.messages[0].redelivered


async def test_a_lost_connection_does_not_interrupt_a_handler_and_redelivers_its_message(
    broker: Broker, vhost: Vhost
) -> None:
    (sent,) = await send(broker)
    finished: list[str] = []
    seen = Recorder()
    gate = asyncio.Event()

    async def work(message: Message) -> Disposition:
        await seen(message)
        await gate.wait()
        finished.append(message.id)
        return Ack()

    async with Consumer(broker, QUEUE, work, prefetch=1):
        await seen.until_count(1)
        session = await broker.session()
        await session.close()
        await seen.until_count(2)  # while the first is still at it
        gate.set()
        await until(lambda: len(finished) == 2)
    assert finished == [sent, sent]
    assert [each.redelivered for each in seen.messages] == [False, True]
    assert await gone(broker)


async def test_an_unforeseen_error_leaves_no_queue_without_a_consumer(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = [AttributeError("deep in a library")]
    real = aio_pika.Channel.set_qos

    async def once(*arguments: Any, **keywords: Any) -> Any:
        if faults:
            raise faults.pop()
        return await real(*arguments, **keywords)

    monkeypatch.setattr(aio_pika.Channel, "set_qos", once)
    async with recorded(broker) as got:
        await send(broker)
        await got.until_count(1)


async def test_a_deleted_queue_comes_back_with_its_consumer(broker: Broker, vhost: Vhost) -> None:
    got = Recorder()
    async with Consumer(broker, QUEUE, got, prefetch=1) as consumer:
        await until(lambda: consumer.consuming)
        vhost.call("DELETE", "queues", QUEUE)
        await until(lambda: not consumer.consuming)

        async def sent() -> bool:
            try:
                await send(broker)
            except Unroutable:
                return False
            return True

        await eventually(sent)
        await got.until_count(1)


async def queued(broker: Broker, *priorities: int | None) -> None:
    for each in priorities:
        await broker.publish("alerts", QUEUE, message("test", {}, priority=each))
    await becomes(lambda: depth(broker, QUEUE), len(priorities))


async def taken(broker: Broker, count: int, *, reject: bool = False) -> str:
    """Take so many messages one after another; `H` stands for a high one."""
    found: list[Message] = []
    done = asyncio.Event()

    async def handle(one: Message) -> Disposition:
        found.append(one)
        if len(found) == count:
            done.set()
        return Retry("again") if reject else Ack()

    async with asyncio.timeout(30), Consumer(broker, QUEUE, handle, prefetch=1):
        await done.wait()
    return "".join("H" if one.priority == HIGH else "." for one in found[:count])


async def test_of_both_priorities_two_high_ones_and_one_other_are_handed_out(
    broker: Broker,
) -> None:
    await queued(broker, *[None] * 6, *[HIGH] * 6)
    assert await taken(broker, 12) == "HH.HH.HH...."


async def test_a_rejected_message_comes_back_with_its_priority(
    broker: Broker, vhost: Vhost
) -> None:
    vhost.set_retry(r"\.retry$", 1)
    await queued(broker, HIGH)
    assert await taken(broker, 1, reject=True) == "H"
    await broker.publish("alerts", QUEUE, message("test", {}))
    await becomes(lambda: depth(broker, QUEUE), 2)
    assert await taken(broker, 2) == "H."
