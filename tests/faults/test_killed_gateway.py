"""kill -9 of the gateway at each step of taking an alert, then the client asks again."""

import asyncio
import uuid

import aiohttp
import pytest

from tests.faults.conftest import ACK, Rig
from tests.support.ending import assert_everything_arrived
from tests.support.proxy import DOWN, UP, Direction, Proxy
from tests.support.stack import Stack

pytestmark = pytest.mark.promise("P1", "P2")


async def forget_what_runs(stack: Stack) -> None:
    """Redis tells for 90 s more that the dead one's requests are still running."""
    await asyncio.to_thread(stack.redis.command, "FLUSHALL")


async def asked_again(stack: Stack, text: str, key: str) -> dict[str, str]:
    """Ask twice: what was accepted, which is one alert."""
    await stack.start("gateway")
    await forget_what_runs(stack)
    accepted = {await stack.alert(text, key=key): text}
    assert set(accepted) == {await stack.alert(text, key=key)}
    return accepted


@pytest.mark.parametrize(
    ("direction", "at"),
    [
        pytest.param(UP, b"alert.accepted", marks=pytest.mark.faults, id="not published"),
        pytest.param(DOWN, ACK, id="not confirmed"),
    ],
)
async def test_a_gateway_killed_at_its_publish_and_asked_again_delivers_once(
    stack: Stack, proxy: Proxy, direction: Direction, at: bytes
) -> None:
    text, key = f"key {uuid.uuid4()}", str(uuid.uuid4())
    held = proxy.stall_before(direction, at)
    asked = asyncio.create_task(stack.alert(text, key=key))
    await held.wait()
    await stack.kill9("gateway")
    with pytest.raises(aiohttp.ClientError):
        await asked
    proxy.cut()
    await proxy.resume()
    await assert_everything_arrived(stack, await asked_again(stack, text, key))


@pytest.mark.faults
async def test_a_gateway_killed_while_the_ledger_takes_its_alert_and_asked_again_delivers_once(
    rig: Rig, proxy: Proxy
) -> None:
    text, key = f"key {uuid.uuid4()}", str(uuid.uuid4())
    await proxy.refuse()
    async with rig.locked("LOCK TABLE alerts.ledger_total IN SHARE MODE"):
        asked = asyncio.create_task(rig.stack.alert(text, key=key))
        await rig.waits_for_a_lock()
        await rig.stack.kill9("gateway")
        with pytest.raises(aiohttp.ClientError):
            await asked
    await proxy.resume()
    rig.accepted = await asked_again(rig.stack, text, key)
    await rig.end()
    await rig.row(*rig.accepted, attempt=1)
