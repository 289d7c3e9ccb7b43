"""A URL with several hosts: two proxies stand for two nodes of a cluster."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from libs.common.messaging.broker import Broker, message
from libs.common.messaging.consumer import Consumer
from tests.integration.common.conftest import ALERTS, DLX, QUEUE, QUEUES
from tests.support.brokers import Vhost
from tests.support.consumers import Recorder, connected, until
from tests.support.proxy import Proxy


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
