import pytest
from aiohttp import ClientSession, ClientTimeout

from tests.support.eventually import eventually
from tests.support.sandbox import Sandbox


async def test_a_message_whose_client_leaves_during_a_delay_is_received(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", delay_seconds=60)
    with pytest.raises(TimeoutError):
        await client.post("/slack", json={"text": "hi"}, timeout=ClientTimeout(total=1))
    received = await eventually(lambda: sandbox.received("slack"))
    assert [item["answered"] for item in received] == [None]
