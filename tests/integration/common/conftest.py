from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from libs.common.messaging.broker import Broker
from libs.common.messaging.consumer import Consumer, Disposition
from libs.common.messaging.topology import Exchange, work_queue
from tests.support.brokers import Vhost
from tests.support.consumers import Recorder, connected
from tests.support.loops import Factories
from tests.support.proxy import Proxy

ALERTS = Exchange("alerts", "direct")
DLX = Exchange("alerts.dlx", "direct")
QUEUE = "alerts.test"
QUEUES = work_queue(QUEUE, exchange=ALERTS, dlx=DLX)


def pytest_asyncio_loop_factories() -> Factories:
    return {"uvloop": uvloop.new_event_loop}  # as the services


@pytest.fixture
async def broker(amqp_url: Callable[[str], str]) -> AsyncIterator[Broker]:
    """Alerts', with a work queue on the exchange `alerts`."""
    async with opened(amqp_url("alerts")) as broker:
        yield broker


@pytest.fixture
async def proxy(vhost: Vhost) -> AsyncIterator[Proxy]:
    async with Proxy(vhost.server.port) as opened:
        yield opened


@pytest.fixture
async def through(vhost: Vhost, proxy: Proxy) -> AsyncIterator[Broker]:
    """A broker behind the proxy."""
    async with opened(vhost.url("alerts", proxy.port)) as broker:
        yield broker


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Broker]:
    async with Broker.connect(url, "alerts") as broker:
        await connected(broker)
        await broker.declare(ALERTS, DLX, *QUEUES)
        yield broker


@asynccontextmanager
async def recorded(
    broker: Broker, *outcomes: Disposition | Exception, prefetch: int = 1, **more: int
) -> AsyncIterator[Recorder]:
    """Consume the work queue; the outcomes are those of the first messages."""
    recorder = Recorder(*outcomes)
    async with Consumer(broker, QUEUE, recorder, prefetch=prefetch, **more):
        yield recorder
