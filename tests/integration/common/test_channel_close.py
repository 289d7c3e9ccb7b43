"""A channel's end must not cost the connection, which is everybody's."""

import asyncio
import gc
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import aiormq
import pytest

from libs.common.messaging.broker import Broker
from libs.common.messaging.session import open_channel
from tests.integration.common.conftest import QUEUE
from tests.support.consumers import until
from tests.support.proxy import DOWN, Proxy


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
