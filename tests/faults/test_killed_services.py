"""kill -9 of any one service: no accepted alert and no consent change is lost."""

import asyncio

import pytest

from tests.faults.conftest import IN_FLIGHT
from tests.support.consumers import until
from tests.support.ending import assert_everything_arrived
from tests.support.load import Load
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = [pytest.mark.faults, pytest.mark.promise("P1", "P2", "P4")]


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> None:
    await stack.sandbox.reset()


@pytest.mark.parametrize("victim", ["alerts", "consent", "followups"])
async def test_a_service_killed_under_load_loses_nothing_and_intake_continues(
    stack: Stack, victim: str
) -> None:
    await stack.sandbox.behave("slack", delay_seconds=0.05)  # many are in flight at the kill
    async with Load(stack) as load:
        await load.more(50)
        await stack.kill9(victim)
        await load.more(50)
        await stack.start(victim)
        await load.more(50)
    assert set(load.answers) == {202}, load.answers
    duplicates = range(IN_FLIGHT + 1) if victim == "alerts" else 0
    await assert_everything_arrived(stack, load.accepted, duplicates=duplicates)


async def test_a_consent_killed_during_unsubscribes_forgets_none_that_was_answered(
    stack: Stack,
) -> None:
    addresses = [fresh_address() for _ in range(30)]
    for address in addresses:
        await stack.opt_in(address)
    answered: list[str] = []

    async def leave(address: str) -> None:
        if (await stack.http("POST", "/api/unsubscribe", {"email": address})).status == 200:
            answered.append(address)

    leaving = [asyncio.create_task(leave(address)) for address in addresses]
    await until(lambda: len(answered) >= 3, 30)
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
