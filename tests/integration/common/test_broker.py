"""A connection to RabbitMQ, to one node or several (proxies), and what is published over it."""

import asyncio
import gc
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import aio_pika
import aiormq
import pytest
from aio_pika.tools import OneShotCallback

from libs.common.messaging.broker import (
    Broker,
    BrokerUnavailable,
    Message,
    Unconfirmed,
    Unroutable,
    message,
)
from libs.common.messaging.consumer import Consumer
from libs.common.messaging.session import open_channel
from libs.common.messaging.topology import Binding, Exchange, Queue, work_queue
from tests.integration.common.conftest import ALERTS, DLX, QUEUE, QUEUES, recorded
from tests.support.brokers import Vhost
from tests.support.consumers import Recorder, connected, depth, until
from tests.support.eventually import eventually
from tests.support.proxy import DOWN, UP, Proxy

BASIC_ACK = b"\x00\x3c\x00\x50"  # the method frame's class and method: a confirmation


def count(vhost: Vhost, queue: str) -> int:
    """Ask the queue itself; the listing's counts are seconds old."""
    body = {"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"}
    return len(vhost.call("POST", "queues", f"{queue}/get", body))


async def test_a_broker_unavailable_at_start_refuses_at_once_and_stops_nothing() -> None:
    async with Broker.connect("amqp://guest:guest@127.0.0.1:1/", "alerts") as away:
        await away.declare(ALERTS, *QUEUES)
        with pytest.raises(BrokerUnavailable):
            await away.publish("alerts", QUEUE, message("test", {}))
        assert not away.connected
        assert not away.blocked


async def test_a_published_message_arrives_as_it_was_sent(broker: Broker) -> None:
    sent = Message(
        str(uuid.uuid4()),
        "test",
        {"zażółć": [1, None, {"a": True}]},
        request_id="request-1",
        reply_to="alerts.replies.x",
        correlation_id="correlation",
        headers={"x-own": "1"},
        priority=5,
    )
    got = Recorder()
    await broker.publish("alerts", QUEUE, sent)
    async with Consumer(broker, QUEUE, got, prefetch=1):
        await got.until_count(1)
    (arrived,) = got.messages
    assert arrived.headers == {"x-own": "1", "x-request-id": "request-1"}
    assert Message(**(vars(arrived) | {"headers": {"x-own": "1"}})) == sent


async def test_a_message_is_persistent_and_names_its_sender(broker: Broker, vhost: Vhost) -> None:
    await broker.publish("alerts", QUEUE, message("test", {}))
    body = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    (raw,) = vhost.call("POST", "queues", f"{QUEUE}/get", body)
    assert raw["properties"]["delivery_mode"] == 2
    assert raw["properties"]["app_id"] == "alerts"
    assert raw["properties"]["content_type"] == "application/json"
    assert raw["properties"]["timestamp"]


async def test_a_missing_or_forbidden_exchange_does_not_fail_other_messages(broker: Broker) -> None:
    async def to(exchange: str) -> str:
        try:
            await broker.publish(exchange, QUEUE, message("test", {}))
        except Unroutable:
            return "unroutable"
        return "confirmed"

    session = await broker.session()
    targets = ["alerts", "alerts.missing", "alerts", "consent.events", "alerts"] * 20
    results = await asyncio.gather(*(to(exchange) for exchange in targets))
    assert results == [
        "confirmed" if exchange == "alerts" else "unroutable" for exchange in targets
    ]
    assert not session.lost.is_set()


def encoded(broker: Broker, count: int, **body: str) -> list[aio_pika.Message]:
    return [broker.encode(Message(f"m-{number}", "test", body)) for number in range(count)]


async def test_messages_of_one_write_arrive_in_order_also_if_one_needs_several_frames(
    broker: Broker,
) -> None:
    sent = encoded(broker, 100)
    sent[50] = broker.encode(Message("m-50", "test", {"text": "x" * 300_000}))
    assert await broker.send_all("alerts", QUEUE, sent, timeout=30) == [None] * 100
    async with recorded(broker, prefetch=200) as got:
        await got.until_count(100)
    assert got.ids == [message.message_id for message in sent]
    assert len(got.messages[50].body["text"]) == 300_000


async def test_each_message_of_one_write_is_refused_if_no_queue_is_bound(broker: Broker) -> None:
    await broker.declare(Queue("alerts.unbound"))  # a channel of its own, as a work queue has
    for _ in range(2):
        refused = await broker.send_all("alerts", "alerts.unbound", encoded(broker, 3), timeout=30)
        assert [type(each) for each in refused] == [Unroutable] * 3
    missing = await broker.send_all("missing", "alerts.unbound", encoded(broker, 3), timeout=30)
    assert [type(each) for each in missing] == [Unroutable] * 3
    await broker.publish("alerts", QUEUE, message("test", {}))


async def test_of_one_write_only_what_has_no_confirm_is_unknown(
    through: Broker, proxy: Proxy, vhost: Vhost
) -> None:
    await through.publish("alerts", QUEUE, message("test", {}))  # opens the channel
    session = await through.session()
    stalled = proxy.stall_before(UP, b"m-1")
    sending = asyncio.create_task(
        through.send_all("alerts", QUEUE, encoded(through, 3), timeout=3600)
    )
    await stalled.wait()
    async with session.publisher("alerts", QUEUE) as publisher:
        assert publisher.channel is not None
        channel: Any = await publisher.channel.get_underlay_channel()
    await until(lambda: len(channel.confirmations) == 2)
    proxy.cut()
    confirmed, *unknown = await sending
    assert confirmed is None
    assert [type(each) for each in unknown] == [Unconfirmed] * 2
    await proxy.resume()
    assert count(vhost, QUEUE) == 2


async def test_a_second_message_of_an_id_waits_for_the_first_of_a_write(broker: Broker) -> None:
    keys = [QUEUE, "nowhere"] * 5
    several = (broker.send_all("alerts", key, encoded(broker, 3), timeout=30) for key in keys)
    single = [broker.publish("alerts", QUEUE, Message("m-1", "test", {})) for _ in range(5)]
    outcomes = await asyncio.gather(*several, *single)
    assert [outcome is None or [each is None for each in outcome] for outcome in outcomes] == [
        *([key == QUEUE] * 3 for key in keys),
        *[True] * 5,
    ]


async def test_a_publish_that_is_cancelled_is_cancelled(through: Broker, proxy: Proxy) -> None:
    stalled = proxy.stall_before(DOWN, BASIC_ACK)
    under_way = asyncio.create_task(through.publish("alerts", QUEUE, message("test", {})))
    await stalled.wait()
    under_way.cancel()
    await asyncio.wait({under_way})
    assert under_way.cancelled()
    await proxy.resume()
    await through.publish("alerts", QUEUE, message("test", {}))


async def test_a_silent_peer_is_given_up_and_its_publishes_are_unconfirmed(
    vhost: Vhost, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.broker.HEARTBEAT_SECONDS", 1)
    async with Broker.connect(vhost.url("alerts", proxy.port), "alerts") as broker:
        await connected(broker)
        await broker.declare(ALERTS, DLX, *QUEUES)
        await broker.publish("alerts", QUEUE, message("test", {}))
        proxy.stall()
        with pytest.raises(Unconfirmed):  # aiormq says CancelledError
            await broker.publish("alerts", QUEUE, message("test", {}), timeout=3600)
        await until(lambda: not broker.connected)
        await proxy.resume()
        await connected(broker)


async def test_a_binding_is_made_once_its_exchange_exists(broker: Broker) -> None:
    late = Exchange("alerts.late", "direct")
    await broker.declare(
        *work_queue("alerts.other", exchange=ALERTS, dlx=DLX, bindings=(Binding(late, "key"),))
    )
    await broker.publish("alerts", "alerts.other", message("test", {}))  # the rest is there
    assert list(broker.refused) == ["binding alerts.late key alerts.other"]
    await broker.declare(late)
    await until(lambda: not broker.refused)
    await broker.publish("alerts.late", "key", message("test", {}))


async def test_a_queue_that_differs_is_named_and_does_not_stop_others(broker: Broker) -> None:
    changed = replace(QUEUES[0], arguments={**QUEUES[0].arguments, "x-delivery-limit": 3})
    other = work_queue("alerts.other", exchange=ALERTS, dlx=DLX)
    await broker.declare(changed, *other)
    await broker.publish("alerts", "alerts.other", message("test", {}))
    assert list(broker.refused) == [f"queue {QUEUE}"]
    assert "x-delivery-limit" in broker.refused[f"queue {QUEUE}"]


async def test_nothing_can_be_published_before_the_last_queue_is_declared(
    broker: Broker, vhost: Vhost, proxy: Proxy
) -> None:
    fresh = work_queue("alerts.fresh", exchange=ALERTS, dlx=DLX)
    async with Broker.connect(vhost.url("alerts", proxy.port), "alerts") as opened:
        await connected(opened)
        held = proxy.stall_before(UP, fresh[-1].name.encode())
        declaring = asyncio.create_task(opened.declare(*fresh))
        await held.wait()
        assert await depth(broker, "alerts.fresh") == 0
        with pytest.raises(Unroutable):
            await broker.publish("alerts", "alerts.fresh", message("test", {}))
        await proxy.resume()
        await declaring
        await broker.publish("alerts", "alerts.fresh", message("test", {}))


async def test_a_connection_lost_while_declaring_leaves_it_to_the_next(
    vhost: Vhost, proxy: Proxy
) -> None:
    async with Broker.connect(vhost.url("alerts", proxy.port), "alerts") as opened:
        session = await opened.session()
        proxy.cut_before(UP, QUEUES[-1].name.encode())
        await opened.declare(ALERTS, DLX, *QUEUES)
        await session.lost.wait()
        await connected(opened)
        assert await depth(opened, QUEUES[-1].name) == 0


async def test_a_queue_declared_for_one_connection_is_not_declared_again(
    through: Broker, proxy: Proxy, vhost: Vhost
) -> None:
    await through.declare_once(Queue("alerts.epoch.test", {"x-queue-type": "quorum"}))
    assert await depth(through, "alerts.epoch.test") == 0
    vhost.call("DELETE", "queues", "alerts.epoch.test")
    session = await through.session()
    proxy.cut()
    await session.lost.wait()
    await connected(through)
    assert await depth(through, "alerts.epoch.test") is None


async def test_a_closed_channel_leaves_nothing_in_memory(broker: Broker) -> None:
    await broker.declare(ALERTS, DLX, *QUEUES)

    async def kept() -> int:
        for _ in range(20):
            await depth(broker, QUEUE)
        gc.collect()
        return sum(isinstance(each, OneShotCallback) for each in gc.get_objects())

    assert await kept() == await kept()


async def test_a_deleted_queue_is_declared_again_when_a_publish_misses_it(
    broker: Broker, vhost: Vhost
) -> None:
    vhost.call("DELETE", "queues", f"{QUEUE}.dead")

    async def bury() -> bool:
        try:
            await broker.publish("alerts.dlx", f"{QUEUE}.dead", message("test", {}))
        except Unroutable:
            return False
        return True

    assert not await bury()
    assert await eventually(bury)


async def test_an_unforeseen_error_does_not_stop_the_broker(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = [AttributeError("deep in a library")]
    real = aio_pika.connect

    async def once(*arguments: Any, **keywords: Any) -> Any:
        if faults:
            raise faults.pop()
        return await real(*arguments, **keywords)

    monkeypatch.setattr("aio_pika.connect", once)
    async with Broker.connect(vhost.url("alerts"), "alerts") as broker:
        await connected(broker)


async def test_reading_a_dead_letter_often_does_not_drop_it(broker: Broker, vhost: Vhost) -> None:
    await broker.publish("alerts.dlx", f"{QUEUE}.dead", message("test", {}))
    for _ in range(30):  # RabbitMQ's own limit is 20
        assert count(vhost, f"{QUEUE}.dead") == 1


@dataclass
class Nodes:
    first: Proxy
    second: Proxy
    vhost: Vhost

    def url(self, *hosts: str) -> str:
        own = f"127.0.0.1:{self.vhost.server.port}"
        nodes = (f"127.0.0.1:{proxy.port}" for proxy in (self.first, self.second))
        return self.vhost.url("alerts").replace(own, ",".join([*hosts, *nodes]))


@pytest.fixture
async def nodes(vhost: Vhost) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as opened:
        first, second = [
            await opened.enter_async_context(Proxy(vhost.server.port)) for _ in range(2)
        ]
        yield Nodes(first, second, vhost)


async def moved_to_the_second(nodes: Nodes, broker: Broker) -> None:
    # It may be connected again before anybody sees that it was not.
    await until(lambda: nodes.second.connections == 2)
    await connected(broker)


async def declared(broker: Broker) -> None:
    await connected(broker)
    await broker.declare(ALERTS, DLX, *QUEUES)


async def test_the_first_host_that_answers_is_used(nodes: Nodes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and answers nothing
        frozen = f"127.0.0.1:{silent.getsockname()[1]}"
        async with Broker.connect(nodes.url("127.0.0.1:1", frozen), "alerts") as broker:
            await declared(broker)
            await broker.publish("alerts", QUEUE, message("test", {}))
    assert nodes.second.passed == dict.fromkeys(nodes.second.passed, 0)


async def test_a_node_that_closes_is_left_for_the_next(nodes: Nodes) -> None:
    async with Broker.connect(nodes.url(), "alerts") as broker:
        await declared(broker)
        await nodes.first.refuse()
        await moved_to_the_second(nodes, broker)
        await broker.publish("alerts", QUEUE, message("test", {}))


async def test_a_frozen_node_is_left_for_the_next(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.broker.HEARTBEAT_SECONDS", 1)
    handler = Recorder()
    async with Broker.connect(nodes.url(), "alerts") as broker:
        await declared(broker)
        async with Consumer(broker, QUEUE, handler, prefetch=10):
            await broker.publish("alerts", QUEUE, message("test", {}))
            await handler.until_count(1)
            nodes.first.stall()  # its connections stay open
            await moved_to_the_second(nodes, broker)
            await broker.publish("alerts", QUEUE, message("test", {}))
            await handler.until_count(2)
        await nodes.first.resume()


async def test_a_session_is_usable_while_a_binding_is_held_up(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RabbitMQ does while another node of its cluster is frozen."""
    async with Broker.connect(nodes.url(), "alerts") as broker:
        await declared(broker)

        async def held_up(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr("libs.common.messaging.broker._declare_step", held_up)
        await nodes.first.refuse()
        await moved_to_the_second(nodes, broker)
        await broker.publish("alerts", QUEUE, message("test", {}))


async def impatient(waiting: Awaitable[Any], seconds: float = 0.2) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await waiting


async def assert_kept(broker: Broker, inside: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Check that the connection lives, that no channel is open on it, and that no task failed."""
    session = await broker.session()
    for _ in range(2):  # the answer to the first comes after whatever RabbitMQ had to say
        assert await broker.exists(QUEUE)
    assert not session.lost.is_set()
    await until(lambda: not inside.channels, 10)
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("name", ["close", "declare_queue"])
async def test_what_nobody_waits_for_keeps_the_connection(
    through: Broker, proxy: Proxy, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    channel = await open_channel((await through.session()).consuming)
    inside = (await channel.get_underlay_channel()).connection
    arguments = () if name == "close" else (QUEUE,)
    proxy.stall(DOWN)
    await impatient(getattr(channel, name)(*arguments))
    await impatient(channel.close())
    await proxy.resume()
    await assert_kept(through, inside, caplog)


async def test_a_close_that_rabbitmq_answers_late_keeps_the_connection(
    through: Broker, proxy: Proxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await open_channel((await through.session()).consuming)
    inside: Any = (await channel.get_underlay_channel()).connection
    monkeypatch.setattr(inside.connection_tune, "heartbeat", 0.2)  # after which aiormq gives up
    proxy.stall(DOWN)
    closing = asyncio.ensure_future(channel.close())
    await asyncio.wait([closing], timeout=1)
    await proxy.resume()
    await closing
    await assert_kept(through, inside, caplog)


async def test_a_call_that_is_cancelled_as_rabbitmq_refuses_it_keeps_the_connection(
    through: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await open_channel((await through.session()).consuming)
    underlay: Any = await channel.get_underlay_channel()
    asking = asyncio.create_task(channel.declare_queue("alerts.missing", passive=True))
    answered = underlay._on_close_frame

    async def refused(frame: aiormq.spec.Channel.Close) -> None:
        asking.cancel()
        await answered(frame)

    monkeypatch.setattr(underlay, "_on_close_frame", refused)
    await asyncio.wait([asking])
    await assert_kept(through, underlay.connection, caplog)
