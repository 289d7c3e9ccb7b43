"""A part is lost with alerts in flight: killed, killed in a bulk retry, its disk wiped, absent.

The reconciler does not requeue overdue rows here: the messages in RabbitMQ recover everything or,
when its disk is gone, the missing marker of the epoch does. Meanwhile SMS ask for answers.
"""

import asyncio
import shutil
import uuid

import pytest

from tests.faults.conftest import IN_FLIGHT
from tests.support.brokers import Vhost
from tests.support.cases import CaseLoad, sections
from tests.support.ending import assert_everything_arrived, states_in_the_ledger
from tests.support.eventually import eventually
from tests.support.load import Load
from tests.support.stack import Stack, quick_alerts_config

pytestmark = [pytest.mark.faults, pytest.mark.promise("P1", "P2")]
STACK_SETTINGS = {"ALERTS_OVERDUE_SECONDS": "3600"}


@pytest.fixture(scope="module", autouse=True)
def asking(stack: Stack) -> None:
    """Let every SMS open a case, whose chain asks twice."""
    ask = {"to": "sms", "person": "anna", "wait": "1s"}
    policy = sections("sms", asks=["sms"], within="1s", chain=[ask, ask])
    quick_alerts_config(stack.folder, **policy)
    stack.restart_now("alerts")


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> None:
    await stack.sandbox.reset()


async def everything_is(stack: Stack, load: Load, *wanted: str) -> None:
    async def so() -> bool:
        states = states_in_the_ledger(stack, load.accepted)
        return len(states) == len(load.accepted) and set(states.values()) <= {*wanted}

    await eventually(so, 60, every=0.2)


@pytest.mark.parametrize(
    "name", ["rabbitmq", "postgres", "redis", "alerts", "consent", "followups"]
)
async def test_what_is_killed_under_load_loses_nothing_and_intake_continues(
    stack: Stack, name: str
) -> None:
    await stack.sandbox.behave("slack", delay_seconds=0.05)  # many are in flight at the kill
    async with Load(stack) as load, CaseLoad(stack) as asking:
        await load.more(100)
        async with stack.without(name):
            await load.more(100)
        await load.more(100)
    assert set(load.answers) == {202}, load.answers
    await asking.end()
    duplicates = range(IN_FLIGHT + 1) if name == "alerts" else 0
    await assert_everything_arrived(stack, load.accepted, duplicates=duplicates)
    assert gaps(stack) == 0


@pytest.mark.parametrize("name", ["rabbitmq", "postgres"])
async def test_a_server_killed_during_a_bulk_retry_loses_nothing(stack: Stack, name: str) -> None:
    await stack.sandbox.behave("slack", status=422)
    async with Load(stack) as before:
        await before.more(600)  # more than a batch of the retry
    await everything_is(stack, before, "failed")
    await stack.sandbox.behave("slack", status=200)

    async def retry() -> bool:
        answer = await stack.http("POST", "/api/dlq/retry", {"status": "failed"}, key="admin")
        return answer.status == 200 and answer.body["skipped"] == 0

    async with Load(stack) as load:
        retrying = asyncio.create_task(retry())
        await load.more(10)
        async with stack.without(name):
            await load.more(50)
        await retrying
        await eventually(retry, 30, every=0.5)  # the batches that had not committed
    assert set(load.answers) == {202}, load.answers
    accepted = before.accepted | load.accepted
    await assert_everything_arrived(stack, accepted)


async def test_a_broker_that_lost_its_disk_loses_nothing_that_reached_the_ledger(
    stack: Stack,
) -> None:
    await stack.sandbox.behave("slack", status=500)
    async with Load(stack) as before:
        await before.more(60)
    await everything_is(stack, before, "pending", "sending")
    async with Load(stack) as load, CaseLoad(stack) as asking:
        await asking.more(5)
        async with stack.without("rabbitmq"):
            shutil.rmtree(stack.rabbitmq.folder / "data")
            await load.more(20)
        await asyncio.to_thread(Vhost, stack.rabbitmq, stack.vhost.name)  # as provisioning does
        await stack.sandbox.behave("slack", status=200)
        await load.more(100)
    assert set(load.answers) == {202}, load.answers
    await asking.end()
    await assert_everything_arrived(stack, before.accepted | load.accepted)
    assert gaps(stack) == 0


async def test_what_a_broker_that_lost_its_disk_had_alone_is_missing_in_the_ledger(
    stack: Stack,
) -> None:
    async with Load(stack) as before:
        await before.more(20)
    await everything_is(stack, before, "delivered")
    await stack.stop("alerts")
    for number in range(5):
        await stack.alert(f"lost {number}")
    async with stack.without("rabbitmq"):
        shutil.rmtree(stack.rabbitmq.folder / "data")
    await asyncio.to_thread(Vhost, stack.rabbitmq, stack.vhost.name)
    await stack.start("alerts")
    async with Load(stack) as after:
        await after.more(20)
    await assert_everything_arrived(stack, before.accepted | after.accepted)
    assert gaps(stack) == 5
    past = "UPDATE alerts.intake_sender SET edge = upper(seen), edge_at = now() - interval '1 hour'"
    stack.query(past)

    async def told() -> bool:
        check = (await stack.http("GET", "/api/ledger/check", key="admin")).body
        return check["missing"] == 5 and check["ok"] is False

    await eventually(told, 60)
    stack.query("UPDATE alerts.intake_sender SET missing = '{}'")  # as the runbook says


def gaps(stack: Stack) -> int:
    """Count the numbers that a gateway process gave before one that came, and that did not come."""
    (row,) = stack.query(
        "SELECT coalesce(sum(upper(r) - lower(r)), 0) AS lost FROM alerts.intake_sender, "
        "unnest(int8multirange(int8range(1, upper(seen))) - seen) AS r"
    )
    return int(row.lost)


async def test_without_redis_alerts_are_taken_and_a_repeated_key_delivers_once(
    stack: Stack,
) -> None:
    key, text = str(uuid.uuid4()), f"key {uuid.uuid4()}"
    async with stack.without("redis"):
        await stack.stop("gateway")
        await stack.start("gateway")  # from nothing: no count and no key of before
        async with Load(stack) as load:
            ids = {await stack.alert(text, key=key)}
            await load.more(100)
            await stack.stop("gateway")
            await stack.start("gateway")  # and the process has forgotten it, too
            ids.add(await stack.alert(text, key=key))
            await load.more(50)
    async with Load(stack) as back:
        ids.add(await stack.alert(text, key=key))
        await back.more(50)
    (alert_id,) = ids
    accepted = {**load.accepted, **back.accepted, alert_id: text}
    await assert_everything_arrived(stack, accepted, duplicates=0)


@pytest.mark.parametrize("name", ["alerts", "gateway"])
async def test_a_service_stopped_under_load_loses_nothing_and_repeats_nothing(
    stack: Stack, name: str
) -> None:
    async with Load(stack) as load:
        await load.more(100)
        await stack.stop(name)  # SIGTERM
        if name != "gateway":
            await load.more(50)
        await stack.start(name)
        await load.more(100)
    await assert_everything_arrived(stack, load.accepted, duplicates=0)
