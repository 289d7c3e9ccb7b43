"""kill -9 of any one service: no accepted alert and no consent change is lost."""

import asyncio
import uuid

import aiohttp
import pytest

from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = pytest.mark.faults
ALERTS = 40


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> None:
    await stack.sandbox.reset()


@pytest.mark.parametrize("victim", ["alerts", "consent", "followups"])
async def test_a_service_killed_under_load_loses_no_accepted_alert(
    stack: Stack, victim: str
) -> None:
    texts = [f"killed {uuid.uuid4()}" for _ in range(ALERTS)]
    await stack.sandbox.behave("slack", delay_seconds=0.05)  # many are in hand at the kill
    sending = asyncio.create_task(_send_all(stack, texts))

    async def some_arrived() -> bool:
        return len(await stack.slack_texts()) >= 5

    await eventually(some_arrived, 30)
    await stack.kill9(victim)
    await sending
    await stack.start(victim)

    async def all_arrived() -> bool:
        got = " ".join(await stack.slack_texts())
        return all(text in got for text in texts)

    await eventually(all_arrived, 90)
    assert await eventually(stack.balanced, 60)


async def _send_all(stack: Stack, texts: list[str]) -> None:
    for text in texts:
        await stack.alert(text)


async def test_a_gateway_killed_under_load_delivers_every_alert_it_accepted(stack: Stack) -> None:
    accepted: list[str] = []

    async def send() -> None:
        for _ in range(ALERTS):
            text = f"gateway {uuid.uuid4()}"
            try:
                await stack.alert(text)
            except (aiohttp.ClientError, OSError):  # no answer: not accepted
                return
            accepted.append(text)

    senders = [asyncio.create_task(send()) for _ in range(4)]

    async def some_accepted() -> bool:
        return len(accepted) >= 10

    await eventually(some_accepted, 30)
    await stack.kill9("gateway")
    await asyncio.gather(*senders)
    await stack.start("gateway")

    async def all_arrived() -> bool:
        got = " ".join(await stack.slack_texts())
        return all(text in got for text in accepted)

    await eventually(all_arrived, 60)
    assert await eventually(stack.balanced, 60)


async def test_a_consent_killed_during_unsubscribes_forgets_none_that_was_answered(
    stack: Stack,
) -> None:
    addresses = [fresh_address() for _ in range(30)]
    for address in addresses:
        answer = await stack.http(
            "POST", "/api/opt-in", {"email": address, "text": "Zgadzam się na wiadomości."}
        )
        assert answer.status == 200
    answered: list[str] = []

    async def leave(address: str) -> None:
        if (await stack.http("POST", "/api/unsubscribe", {"email": address})).status == 200:
            answered.append(address)

    async def some_answered() -> bool:
        return len(answered) >= 3

    leaving = [asyncio.create_task(leave(address)) for address in addresses]
    await eventually(some_answered, 30)
    await stack.kill9("consent")
    await asyncio.gather(*leaving)
    await stack.start("consent")
    for address in answered:
        status = await stack.http("GET", f"/api/unsubscribe/status/{address}", key="service")
        assert status.body["unsubscribed"] is True
        audit = await stack.http("GET", f"/api/consent/audit/{address}", key="admin")
        assert [entry["action"] for entry in audit.body["entries"]] == ["opt-in", "unsubscribe"]
    verified = await stack.http("GET", "/api/consent/audit/verify", key="admin")
    assert verified.body["ok"] is True
