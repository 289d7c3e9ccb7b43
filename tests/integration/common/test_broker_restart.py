"""What a broker of its own is needed for: restarts, a lost disk, an alarm."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.up.servers import RabbitMQ
from libs.common.messaging.broker import Broker, BrokerUnavailable, Unconfirmed, message
from tests.integration.common.conftest import ALERTS, DLX, QUEUE, QUEUES, recorded
from tests.support.brokers import Vhost, rabbitmqctl
from tests.support.consumers import connected, depth, until
from tests.support.ports import Ports
from tests.support.servers import own_rabbitmq, running


@pytest.fixture(scope="module")
def server(private_folder: Path, ports: Ports) -> Iterator[RabbitMQ]:
    with running(own_rabbitmq(private_folder / "own-rabbitmq", ports)) as own:
        yield own


@pytest.fixture
def own_vhost(server: RabbitMQ) -> Vhost:
    server.start()
    return Vhost(server)


@pytest.fixture
async def broker(own_vhost: Vhost) -> AsyncIterator[Broker]:
    async with Broker.connect(own_vhost.url("alerts"), "alerts") as opened:
        await connected(opened)
        await opened.declare(ALERTS, DLX, *QUEUES)
        yield opened


async def test_a_broker_with_an_alarm_refuses_publishes_and_consumers_continue(
    server: RabbitMQ, broker: Broker
) -> None:
    await asyncio.gather(*(broker.publish("alerts", QUEUE, message("test", {})) for _ in range(20)))
    await asyncio.to_thread(rabbitmqctl, server, "set_disk_free_limit", "1000000GB")
    try:
        # RabbitMQ tells of the alarm when it gets a publish: those under way are not left waiting.
        first = [broker.publish("alerts", QUEUE, message("test", {}), timeout=3600) for _ in "123"]
        async with asyncio.timeout(20):
            results = await asyncio.gather(*first, return_exceptions=True)
        assert {type(result) for result in results} == {Unconfirmed}
        assert broker.blocked
        with pytest.raises(BrokerUnavailable):
            await broker.publish("alerts", QUEUE, message("test", {}))
        async with recorded(broker, prefetch=5) as got:
            await got.until_count(20)  # acknowledgements go another way
        assert await depth(broker, QUEUE) == 0
    finally:
        await asyncio.to_thread(rabbitmqctl, server, "set_disk_free_limit", "1MB")
    await until(lambda: not broker.blocked)
    await broker.publish("alerts", QUEUE, message("test", {}))
