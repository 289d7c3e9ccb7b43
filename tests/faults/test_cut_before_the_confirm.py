"""RabbitMQ has the message, and whoever published it never hears so."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.faults.conftest import ACK, Rig, through
from tests.support.ending import assert_everything_arrived
from tests.support.proxy import DOWN, Proxy
from tests.support.stack import Stack


@pytest.fixture
async def proxy(stack: Stack) -> AsyncIterator[Proxy]:
    """Stand between the gateway and RabbitMQ."""
    await stack.sandbox.reset()
    async with Proxy(stack.rabbitmq.port) as opened:
        await stack.stop("gateway")
        url = stack.vhost.url("gateway")
        stack.changes["gateway"] = {"AMQP_URL": through(opened, stack.rabbitmq.port, url)}
        await stack.start("gateway")
        yield opened
    await stack.kill9("gateway")
    stack.changes["gateway"] = {}
    await stack.start("gateway")


async def test_a_gateway_killed_before_the_confirm_and_asked_again_delivers_once(
    stack: Stack, proxy: Proxy
) -> None:
    text, key = f"key {uuid.uuid4()}", str(uuid.uuid4())
    held = proxy.stall_before(DOWN, ACK)
    asked = asyncio.create_task(stack.alert(text, key=key))
    await held.wait()
    await stack.kill9("gateway")
    with pytest.raises(aiohttp.ClientError):
        await asked
    proxy.cut()
    await proxy.resume()
    await stack.start("gateway")
    # For 90 s more Redis tells that the first request is still running.
    await asyncio.to_thread(stack.redis.command, "FLUSHALL")
    accepted = {await stack.alert(text, key=key): text}
    assert set(accepted) == {await stack.alert(text, key=key)}
    await assert_everything_arrived(stack, accepted)


@pytest.mark.faults
async def test_a_gateway_cut_off_before_the_confirm_takes_the_other_way_and_delivers_once(
    stack: Stack, proxy: Proxy
) -> None:
    text = f"cut {uuid.uuid4()}"
    cut = proxy.cut_before(DOWN, ACK)
    accepted = {await stack.alert(text): text}
    assert cut.is_set()
    await assert_everything_arrived(stack, accepted)


@pytest.mark.faults
async def test_intake_cut_off_before_the_confirm_of_its_work_delivers_once(rig: Rig) -> None:
    cut = rig.broker.cut_before(DOWN, ACK)
    alert_id = await rig.accept()
    await cut.wait()
    await rig.end()
    await rig.row(alert_id, attempt=1)


@pytest.mark.faults
async def test_the_outbox_cut_off_before_the_confirm_delivers_once(rig: Rig) -> None:
    await rig.stack.sandbox.behave("slack", status=410, fail_next=1)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="failed")
    await rig.until_depth("alerts.slack.dead", 1)  # its own outbox row is out
    cut = rig.broker.cut_before(DOWN, ACK)
    await rig.stack.http("POST", "/api/dlq/retry", {"ids": [alert_id]}, key="admin")
    await cut.wait()
    await rig.end()
    await rig.row(alert_id, attempt=2, turn=1)


@pytest.mark.faults
async def test_a_longer_delay_cut_off_before_the_confirm_delivers_once(rig: Rig) -> None:
    await rig.stack.sandbox.behave("slack", status=500, fail_next=2)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="pending", attempt=1)
    cut = rig.broker.cut_before(DOWN, ACK)
    await cut.wait()
    await rig.end()
    await rig.row(alert_id, attempt=3)
