"""Cut off at the worst moment, and alive: only a kill -9 explains a duplicate.

Whoever publishes never hears that RabbitMQ has the message, whether it has it or not. And
PostgreSQL goes away between a target's answer and the statement that records it.
"""

import asyncio
import uuid

import pytest

from tests.faults.conftest import ACK, Rig
from tests.support.ending import assert_everything_arrived
from tests.support.eventually import eventually
from tests.support.proxy import DOWN, UP, Direction, Proxy
from tests.support.stack import Stack

pytestmark = [pytest.mark.faults, pytest.mark.promise("P1")]
AWAY_SECONDS = 20.0  # far beyond the target's lease and the margin in it


def either_way(published: bytes) -> pytest.MarkDecorator:
    """Cut before what is published leaves, or before its confirm arrives."""
    return pytest.mark.parametrize(
        ("direction", "at"),
        [
            pytest.param(UP, published, id="not published"),
            pytest.param(DOWN, ACK, id="not confirmed"),
        ],
    )


async def outbox_is_empty(rig: Rig) -> bool:
    return not rig.query("SELECT 1 FROM alerts.outbox")


async def test_a_gateway_cut_off_before_the_confirm_takes_the_other_way_and_delivers_once(
    stack: Stack, proxy: Proxy
) -> None:
    text = f"cut {uuid.uuid4()}"
    cut = proxy.cut_before(DOWN, ACK)
    accepted = {await stack.alert(text): text}
    assert cut.is_set()
    await assert_everything_arrived(stack, accepted)


async def test_intake_cut_off_before_the_confirm_of_its_work_delivers_once(rig: Rig) -> None:
    cut = rig.broker.cut_before(DOWN, ACK)
    alert_id = await rig.accept()
    await cut.wait()
    await rig.end()
    await rig.row(alert_id, attempt=1)


@either_way(b"alert.work")
async def test_the_outbox_cut_off_before_the_confirm_delivers_once(
    rig: Rig, direction: Direction, at: bytes
) -> None:
    await rig.stack.sandbox.behave("slack", status=422, fail_next=1)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="failed")
    await eventually(lambda: outbox_is_empty(rig), 30)  # of what it told of that
    cut = rig.broker.cut_before(direction, at)
    await rig.stack.http("POST", "/api/dlq/retry", {"ids": [alert_id]}, key="admin")
    await cut.wait()
    await rig.end()
    await rig.row(alert_id, attempt=2, generation=1)


@either_way(b"alerts.slack.retry.4")
async def test_a_longer_delay_cut_off_before_the_confirm_delivers_once(
    rig: Rig, direction: Direction, at: bytes
) -> None:
    await rig.stack.sandbox.behave("slack", status=500, fail_next=2)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="pending", attempt=1)
    cut = rig.broker.cut_before(direction, at)
    await cut.wait()
    await rig.end()
    await rig.row(alert_id, attempt=3)


@pytest.mark.parametrize("seconds", ["3600", "2"])
async def test_delivered_with_the_database_cut_off_before_the_record_arrives_once(
    rig: Rig, seconds: str
) -> None:
    await rig.start(ALERTS_RECONCILE_SECONDS=seconds, ALERTS_OVERDUE_SECONDS=seconds)
    held = rig.slack.stall_before(DOWN, b"HTTP/1.1 200")
    alert_id = await rig.accept()
    await held.wait()
    await rig.row(alert_id, state="sending")
    await rig.database.refuse()
    await rig.slack.resume()
    await asyncio.sleep(AWAY_SECONDS)
    await rig.row(alert_id, state="sending")
    await rig.database.resume()
    await rig.end(duplicates=0)
    await rig.row(alert_id, state="delivered", attempt=1)
