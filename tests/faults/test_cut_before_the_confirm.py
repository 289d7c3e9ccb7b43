"""RabbitMQ has the message, and whoever published it never hears so."""

import uuid

import pytest

from tests.faults.conftest import ACK, Rig
from tests.support.ending import assert_everything_arrived
from tests.support.proxy import DOWN, Proxy
from tests.support.stack import Stack

pytestmark = pytest.mark.faults


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


async def test_a_longer_delay_cut_off_before_the_confirm_delivers_once(rig: Rig) -> None:
    await rig.stack.sandbox.behave("slack", status=500, fail_next=2)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="pending", attempt=1)
    cut = rig.broker.cut_before(DOWN, ACK)
    await cut.wait()
    await rig.end()
    await rig.row(alert_id, attempt=3)
