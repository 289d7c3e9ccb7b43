"""P4 in a race: mails due at one moment, SMTP slow, people leaving; then with processes killed.

For each person: once an unsubscribe was answered 200, SMTP gets no mail to them; by SMTP's own
record, which is of the moment of its answer, and so later than the dot. A quick one runs in
make test-all, the rest in make test-faults.
"""

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import IN_FLIGHT
from tests.support.console_use import ConsoleUse
from tests.support.ending import assert_everything_arrived
from tests.support.eventually import eventually
from tests.support.load import Load
from tests.support.race import Race
from tests.support.stack import Stack, write_alerts_config

pytestmark = pytest.mark.promise("P4")

PATIENCE = 2.0
KILL_SECONDS = 2.0
STACK_SETTINGS = {"WITHDRAWAL_WAIT_SECONDS": str(PATIENCE)}
MAIL: dict[str, Any] = {
    "timeout": 5,
    "margin": 2,
    "ask_timeout": 2,
    "retry_delays": [9] * 5,  # the lease
    "concurrency": 8,
    "breaker": {"fail_max": 1000, "reset_timeout": 1},
}


@pytest.fixture(autouse=True)
async def slow(stack: Stack, tmp_path: Path) -> None:
    await mails_slowly(stack, tmp_path)


async def mails_slowly(stack: Stack, tmp_path: Path) -> None:
    await stack.sandbox.reset()
    await stack.stop("alerts")
    config = write_alerts_config(tmp_path, {"email": MAIL})
    stack.changes["alerts"] = {"ALERTS_CONFIG": str(config)}
    await stack.start("alerts")
    stack.vhost.set_retry(r"^alerts\.email\.retry$", MAIL["retry_delays"][0])


@pytest.mark.parametrize("stage", ["data", pytest.param("dot", marks=pytest.mark.faults)])
async def test_after_a_200_no_mail_leaves(stack: Stack, stage: str) -> None:
    await stack.sandbox.behave("email", stage=stage, delay_seconds=0.4)
    denied = raced = 0
    for seed in range(1, 6):  # on a busy machine all mails may leave before the first withdrawal
        race = Race(stack, 32, seed)
        await race.run()
        ends = await race.hold(patience=PATIENCE)
        assert ends["sent"] >= 8  # who stayed, at least
        await race.hold_for_whoever_asks_again()
        assert await eventually(stack.balanced)
        denied += race.denied()
        raced += race.raced()
        if denied and raced:
            return
    pytest.fail(f"no race in five: {denied} mails denied, {raced} permits out at a withdrawal")


async def killed(stack: Stack, victim: str) -> None:
    async with stack.without(victim):
        """Nothing: it is back as soon as it is gone."""


@pytest.mark.faults
@pytest.mark.parametrize("stage", ["data", "dot"])
@pytest.mark.parametrize("victim", ["alerts", "consent", "rabbitmq"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_after_a_200_no_mail_leaves_whatever_is_killed(
    stack: Stack, victim: str, stage: str, seed: int
) -> None:
    await stack.sandbox.behave("email", stage=stage, delay_seconds=0.4)
    race = Race(stack, 48, seed)

    await race.run(meanwhile=partial(killed, stack, victim))
    ends = await race.hold(patience=PATIENCE)
    assert ends["sent"] > 0
    assert ends["cancelled"] > 0
    assert race.raced() > 0
    await race.hold_for_whoever_asks_again()
    assert await eventually(stack.balanced)


@pytest.mark.faults
async def test_no_promise_breaks_while_the_console_is_killed_every_two_seconds(
    stack: Stack,
) -> None:
    await stack.sandbox.behave("email", stage="dot", delay_seconds=0.4)
    race = Race(stack, 32, 1)
    over, kills = asyncio.Event(), 0

    async def kill_the_console() -> None:
        nonlocal kills
        while not over.is_set():
            await stack.kill9("console")
            kills += 1
            await stack.start("console")
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), KILL_SECONDS)

    async with ConsoleUse(stack, 1, 5 * KILL_SECONDS) as use:
        killing = asyncio.create_task(kill_the_console())
        try:
            async with Load(stack, clients=4) as load:
                await race.run(meanwhile=partial(killed, stack, "alerts"))
                await load.more(50)
        finally:
            over.set()
            await killing
    assert kills > 2
    use.hold()
    assert set(load.answers) == {202}, load.answers
    await race.hold(patience=PATIENCE)
    await race.hold_for_whoever_asks_again()
    await assert_everything_arrived(stack, load.accepted, duplicates=range(IN_FLIGHT + 1))
