import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import pytest

from libs.common.broker import (
    Broker,
    BrokerUnavailable,
    Message,
    Unconfirmed,
    Unroutable,
    message,
)
from libs.common.consume import Ack, Consumer, Dead, Delivery, Outcome, Requeue, Retry, consume
from libs.common.requests import NoAnswer, Requester, reply
from libs.common.topology import Binding, Exchange, work_queue
from tests.support.brokers import Vhost

ALERTS = Exchange("alerts", "direct")
DLX = Exchange("alerts.dlx", "direct")
QUEUE = "alerts.test"
TOPOLOGY = (ALERTS, DLX, *work_queue(QUEUE, exchange=ALERTS, dlx=DLX))


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - polls what sets no event
            await asyncio.sleep(0.02)


@pytest.fixture
async def broker(amqp_url: Callable[[str], str]) -> AsyncIterator[Broker]:
    async with Broker.connect(amqp_url("alerts"), "alerts") as opened:
        await until(lambda: opened.connected)
        await opened.declare(*TOPOLOGY)
        yield opened


async def test_a_broker_that_is_away_refuses_at_once_and_stops_no_start() -> None:
    async with Broker.connect("amqp://guest:guest@127.0.0.1:1/", "alerts") as away:
        await away.declare(*TOPOLOGY)
        with pytest.raises(BrokerUnavailable):
            await away.publish("alerts", QUEUE, message("test", {}))


async def test_an_unroutable_message_is_an_error(broker: Broker) -> None:
    with pytest.raises(Unroutable):
        await broker.publish("alerts", "nowhere", message("test", {}))
    with pytest.raises(Unconfirmed):
        await broker.publish("alerts.no-such-exchange", "nowhere", message("test", {}))
    await broker.publish("alerts", QUEUE, message("test", {}))


async def test_many_publishes_at_once_are_all_confirmed_and_arrive(broker: Broker) -> None:
    sent = {str(uuid.uuid4()) for _ in range(300)}
    got: set[str] = set()

    async def take(message: Message, _: Delivery) -> Outcome:
        got.add(message.id)
        return Ack()

    await asyncio.gather(
        *(broker.publish("alerts", QUEUE, Message(number, "test", {})) for number in sent)
    )
    async with consume(broker, QUEUE, take, prefetch=50):
        await until(lambda: got == sent)


async def test_a_retry_comes_back_and_is_counted_by_rabbitmq(broker: Broker, vhost: Vhost) -> None:
    deaths: list[int] = []

    async def take(_: Message, delivery: Delivery) -> Outcome:
        deaths.append(delivery.death_count)
        return Ack() if len(deaths) == 3 else Retry("again")

    await broker.publish("alerts", QUEUE, message("test", {}))
    async with consume(broker, QUEUE, take, prefetch=1):
        await until(lambda: len(deaths) == 3)
    assert deaths == [0, 1, 2]


async def test_a_handler_that_keeps_failing_ends_in_dead_with_its_reason(broker: Broker) -> None:
    async def take(_: Message, __: Delivery) -> Outcome:
        raise RuntimeError

    buried: list[Message] = []

    async def look(message: Message, _: Delivery) -> Outcome:
        buried.append(message)
        return Ack()

    sent = message("test", {"number": 1})
    await broker.publish("alerts", QUEUE, sent)
    async with (
        consume(broker, QUEUE, take, prefetch=1, max_retries=1),
        consume(broker, f"{QUEUE}.dead", look, prefetch=1),
    ):
        await until(lambda: buried)
    assert buried[0].id == sent.id
    assert buried[0].headers["x-ostoja-reason"] == "failed 2 times: RuntimeError"


async def test_dead_goes_to_dead_at_once(broker: Broker) -> None:
    async def take(_: Message, __: Delivery) -> Outcome:
        return Dead("malformed")

    buried: list[Message] = []

    async def look(message: Message, _: Delivery) -> Outcome:
        buried.append(message)
        return Ack()

    await broker.publish("alerts", QUEUE, message("test", {}))
    async with (
        consume(broker, QUEUE, take, prefetch=1),
        consume(broker, f"{QUEUE}.dead", look, prefetch=1),
    ):
        await until(lambda: buried)
    assert buried[0].headers["x-ostoja-reason"] == "malformed"


async def test_a_requeued_message_is_given_out_again(broker: Broker) -> None:
    seen: list[bool] = []

    async def take(_: Message, delivery: Delivery) -> Outcome:
        seen.append(delivery.redelivered)
        return Ack() if len(seen) == 2 else Requeue()

    await broker.publish("alerts", QUEUE, message("test", {}))
    async with consume(broker, QUEUE, take, prefetch=1):
        await until(lambda: len(seen) == 2)
    assert seen == [False, True]


async def test_a_paused_consumer_takes_nothing_until_it_resumes(broker: Broker) -> None:
    seen: list[str] = []

    async def take(message: Message, _: Delivery) -> Outcome:
        seen.append(message.id)
        return Ack()

    async with consume(broker, QUEUE, take, prefetch=10) as consumer:
        await consumer.pause()
        await broker.publish("alerts", QUEUE, message("test", {}))
        assert not consumer.consuming
        await consumer.resume(prefetch=1)
        await until(lambda: len(seen) == 1)


async def test_a_stop_gives_back_what_is_not_finished(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.consume.DRAIN_SECONDS", 0.1)
    started = asyncio.Event()

    async def hang(_: Message, __: Delivery) -> Outcome:
        started.set()
        await asyncio.Event().wait()
        return Ack()

    seen: list[bool] = []

    async def take(_: Message, delivery: Delivery) -> Outcome:
        seen.append(delivery.redelivered)
        return Ack()

    await broker.publish("alerts", QUEUE, message("test", {}))
    async with consume(broker, QUEUE, hang, prefetch=1):
        await started.wait()
    async with consume(broker, QUEUE, take, prefetch=1):
        await until(lambda: seen)
    assert seen == [True]


async def test_consumers_and_queues_are_back_after_the_connection_was_cut(
    broker: Broker, vhost: Vhost
) -> None:
    seen: list[str] = []

    async def take(message: Message, _: Delivery) -> Outcome:
        seen.append(message.id)
        return Ack()

    async with consume(broker, QUEUE, take, prefetch=1):
        assert broker._connection is not None
        await broker._connection.close()
        await until(lambda: not broker.connected)
        await until(lambda: broker.connected)
        await broker.publish("alerts", QUEUE, message("test", {}))
        await until(lambda: seen)


async def test_the_watchdog_brings_back_a_deleted_queue_and_its_consumer(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.consume.WATCH_SECONDS", 0.1)
    seen: list[str] = []

    async def take(message: Message, _: Delivery) -> Outcome:
        seen.append(message.id)
        return Ack()

    async def deleted(consumer: Consumer) -> None:
        assert broker._connection is not None
        async with broker._connection.channel() as channel:
            await channel.queue_delete(QUEUE)

    async with consume(broker, QUEUE, take, prefetch=1) as consumer:
        await deleted(consumer)
        async with asyncio.timeout(20):
            while True:
                try:
                    await broker.publish("alerts", QUEUE, message("test", {}))
                except Unroutable:
                    await asyncio.sleep(0.05)
                else:
                    break
        await until(lambda: seen)


async def test_a_question_is_answered_and_one_without_an_answer_ends_in_time(
    broker: Broker, amqp_url: Callable[[str], str]
) -> None:
    commands, dlx = Exchange("consent.commands", "direct"), Exchange("consent.dlx", "direct")
    queues = work_queue("consent.permits", exchange=commands, dlx=dlx)

    async with (
        Broker.connect(amqp_url("consent"), "consent") as consent,
        Requester.connect(broker, "alerts") as requester,
    ):

        async def answer(message: Message, _: Delivery) -> Outcome:
            if message.body["answer"]:
                await reply(consent, message, {"number": message.body["number"] + 1})
            return Ack()

        async def ask(number: int, *, answer: bool = True, seconds: float = 10) -> int:
            body = {"answer": answer, "number": number}
            to = ("consent.commands", "consent.permits")
            return int((await requester.ask(*to, "ask", body, timeout=seconds))["number"])

        await until(lambda: consent.connected)
        await consent.declare(commands, dlx, *queues)
        async with consume(consent, "consent.permits", answer, prefetch=10):
            answers = await asyncio.gather(*(ask(number) for number in range(50)))
            assert answers == list(range(1, 51))
            with pytest.raises(NoAnswer):
                await ask(0, answer=False, seconds=0.3)


async def test_a_binding_to_an_exchange_that_comes_later_is_made_then(broker: Broker) -> None:
    late = Exchange("alerts.late", "direct")
    queues = work_queue("alerts.other", exchange=ALERTS, dlx=DLX, bindings=(Binding(late, "k"),))
    await broker.declare(*queues)
    assert broker._foreign
    await broker.declare(late)
    await until(lambda: not broker._foreign)
    await broker.publish("alerts.late", "k", message("test", {}))
