from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from libs.common.messaging.broker import Broker
from libs.common.messaging.topology import Exchange, work_queue
from tests.support.consumers import connected
from tests.support.loops import Factories

ALERTS = Exchange("alerts", "direct")
DLX = Exchange("alerts.dlx", "direct")


def pytest_asyncio_loop_factories() -> Factories:
    return {"uvloop": uvloop.new_event_loop}  # as the services


@pytest.fixture
async def broker(amqp_url: Callable[[str], str]) -> AsyncIterator[Broker]:
    """Alerts', with the work queue `alerts.test` on the exchange `alerts`."""
    async with Broker.connect(amqp_url("alerts"), "alerts") as opened:
        await connected(opened)
        await opened.declare(ALERTS, DLX, *work_queue("alerts.test", exchange=ALERTS, dlx=DLX))
        yield opened
