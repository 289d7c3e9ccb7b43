"""A quorum queue whose leader does not answer."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika
import pytest

from libs.common.messaging.broker import Broker, Message, PublishError, Unconfirmed, message
from libs.common.messaging.consumer import Consumer, Disposition
from libs.common.messaging.queue_depths import KEPT_SECONDS
from libs.common.messaging.topology import work_queue
from tests.integration.common.conftest import ALERTS, DLX, QUEUE
from tests.support.brokers import Vhost, leaderless
from tests.support.consumers import Recorder, connected, until
from tests.support.eventually import becomes, eventually
from tests.support.proxy import Proxy

OTHER = "alerts.other"
DEAD = f"{QUEUE}.dead"


async def declared(vhost: Vhost, queue: str) -> tuple[int | None, int | None]:
    """Ask as everybody does, by a passive declare: messages and consumers."""
    async with await aio_pika.connect(vhost.admin_url()) as connection:
        channel = await connection.channel()
        found = (await channel.declare_queue(queue, passive=True)).declaration_result
        return found.message_count, found.consumer_count


async def put(broker: Broker, count: int) -> None:
    for _ in range(count):
        await broker.publish("alerts.dlx", DEAD, message("test", {}))


async def test_a_queue_with_a_silent_leader_is_not_reported_empty(
    broker: Broker, vhost: Vhost
) -> None:
    await put(broker, 3)
    with leaderless(vhost, DEAD):
        assert await declared(vhost, DEAD) == (0, 0)  # the lie
        session = await broker.session()
        assert await broker.depths([DEAD, QUEUE]) == {DEAD: None, QUEUE: 0}

        async def two_connections() -> bool:  # no look runs on
            return len(vhost.connections()) == 2

        await eventually(two_connections, 60)
    await becomes(lambda: broker.depths([DEAD, QUEUE]), {DEAD: 3, QUEUE: 0}, 60)
    assert await broker.session() is session


async def test_no_answer_is_older_than_the_question_by_more_than_a_second(
    broker: Broker, vhost: Vhost
) -> None:
    with leaderless(vhost, DEAD):
        looking = asyncio.create_task(broker.depths([DEAD, QUEUE]))  # for some seconds
        await asyncio.sleep(1)
        await broker.publish("alerts", QUEUE, message("test", {}))
        await asyncio.sleep(KEPT_SECONDS + 0.1)
        assert not looking.done()
        assert await broker.depths([QUEUE]) == {QUEUE: 1}
        assert await looking == {DEAD: None, QUEUE: 0}


async def test_an_empty_queue_without_consumers_is_reported_empty(broker: Broker) -> None:
    await put(broker, 2)
    assert await broker.depths([DEAD, QUEUE, "alerts.nowhere"]) == {
        DEAD: 2,
        QUEUE: 0,
        "alerts.nowhere": 0,
    }


@asynccontextmanager
async def far_away(vhost: Vhost, *names: str) -> AsyncIterator[Broker]:
    async with (
        Proxy(vhost.server.port) as proxy,
        Broker.connect(vhost.url("alerts", proxy.port), "alerts") as broker,
    ):
        await connected(broker)
        queues = [work_queue(name, exchange=ALERTS, dlx=DLX) for name in names]
        await broker.declare(ALERTS, DLX, *(queue for each in queues for queue in each))
        proxy.delay = 0.05
        yield broker


async def test_many_queues_of_a_broker_at_100_ms_are_asked_together(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.queue_depths.KEPT_SECONDS", 10.0)
    async with far_away(vhost, *(f"alerts.q{number}" for number in range(7))) as broker:
        queues = list(broker.queues)
        assert len(queues) == 21
        begun = time.monotonic()
        assert await broker.depths(queues) == dict.fromkeys(queues, 0)
        took = time.monotonic() - begun
        assert took < 3  # one after another: more than 8
        assert await broker.depths(queues) == dict.fromkeys(queues, 0)
        assert time.monotonic() - begun < took + 0.05  # as seen a moment ago


async def test_a_look_that_takes_too_long_costs_no_delivery(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    got, going_on = Recorder(), asyncio.Event()

    async def slow(incoming: Message) -> Disposition:
        await going_on.wait()
        return await got(incoming)

    async with far_away(vhost, QUEUE) as broker, Consumer(broker, QUEUE, slow, prefetch=1):
        session = await broker.session()
        await broker.publish("alerts", QUEUE, message("test", {}))
        for seconds in (0.05, 0.15, 0.2, 0.25, 0.3, 0.35):  # opens, asks, closes
            monkeypatch.setattr("libs.common.messaging.queue_depths.LOOK_SECONDS", seconds)
            monkeypatch.setattr("libs.common.messaging.queue_depths.KEPT_SECONDS", -1.0)
            await broker.depths(list(broker.queues))
        assert await broker.exists(QUEUE)
        going_on.set()
        await got.until_count(1)
        assert not session.lost.is_set()
    assert [each.redelivered for each in got.messages] == [False]


async def test_a_publish_to_a_leaderless_queue_does_not_delay_others(
    broker: Broker, vhost: Vhost
) -> None:
    await broker.declare(*work_queue(OTHER, exchange=ALERTS, dlx=DLX))
    await (await broker.session()).close()  # its channels have not published yet
    await connected(broker)
    with leaderless(vhost, QUEUE):
        stuck = asyncio.create_task(broker.publish("alerts", QUEUE, message("test", {})))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        await broker.publish("alerts", OTHER, message("test", {}))
        assert time.monotonic() - begun < 2
        with pytest.raises(Unconfirmed):
            await stuck


async def test_a_session_is_kept_long_after_a_publish_without_a_confirm(
    broker: Broker, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.session.SILENT_SECONDS", 0.6)
    await broker.declare(*work_queue(OTHER, exchange=ALERTS, dlx=DLX))
    session = await broker.session()
    with leaderless(vhost, QUEUE):
        for _ in range(2):  # with nothing to publish in between
            with pytest.raises(Unconfirmed):
                await broker.publish("alerts", QUEUE, message("test", {}), timeout=0.2)
            await asyncio.sleep(0.8)
        await broker.publish("alerts", OTHER, message("test", {}), timeout=30)
        assert not session.lost.is_set()
        for _ in range(2):  # an answer ends what was silent before it
            with pytest.raises(Unconfirmed):
                await broker.publish("alerts", QUEUE, message("test", {}), timeout=0.2)
        assert not session.lost.is_set()


async def test_publishes_whose_callers_give_up_are_counted_as_unanswered(
    broker: Broker, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.session.SILENT_SECONDS", 1.0)
    await broker.publish("alerts", QUEUE, message("test", {}))
    session = await broker.session()

    async def impatient() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.4):
                await broker.publish("alerts", QUEUE, message("test", {}))

    with leaderless(vhost, QUEUE):
        await asyncio.gather(*(impatient() for _ in range(9)))  # the time counts once
        assert not session.lost.is_set()
        await impatient()
        assert not session.lost.is_set()
        await impatient()
        assert session.lost.is_set()


async def test_a_session_without_confirms_is_given_up(
    broker: Broker, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.session.SILENT_SECONDS", 1.0)
    await broker.publish("alerts", QUEUE, message("test", {}))
    session = await broker.session()
    with leaderless(vhost, QUEUE):
        for _ in range(5):
            with pytest.raises(PublishError):
                await broker.publish("alerts", QUEUE, message("test", {}), timeout=0.4)
        await until(session.lost.is_set)
    await connected(broker)
    await broker.publish("alerts", QUEUE, message("test", {}), timeout=30)
