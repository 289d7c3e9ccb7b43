"""Alarms that fire, rise, end and fire again while processes and servers are killed.

Messages overtake each other: while RabbitMQ is away, alerts take the other way. Whatever came
first, the last that was accepted decides whether somebody is asked.
"""

import asyncio
import uuid

import pytest

from tests.support.cases import sections
from tests.support.eventually import eventually
from tests.support.load import PAUSE_SECONDS, Load, rounds
from tests.support.servers import kill_with_children
from tests.support.stack import Stack, quick_alerts_config

pytestmark = [pytest.mark.faults, pytest.mark.promise("P9")]


class Flapping(Load):
    """Each client has an alarm of its own; at the end every second one is over."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.fires: dict[str, bool] = {}
        """Of each dedup_key: whether it fires at last."""

    async def _client(self) -> None:
        thing = f"thing {uuid.uuid4()}"
        fires = self.fires[thing] = len(self.fires) % 2 == 0
        for fields in rounds(fires, self._stopping):
            text, key = f"load {uuid.uuid4()}", str(uuid.uuid4())
            alert_id = await self._until_accepted(text, key, dedup_key=thing, **fields)
            self.accepted[alert_id] = text
            await asyncio.sleep(PAUSE_SECONDS)


@pytest.fixture(scope="module", autouse=True)
def asking(stack: Stack) -> None:
    ask = {"to": "sms", "person": "anna", "wait": "1h"}
    quick_alerts_config(stack.folder, **sections(chain=[ask, ask]))
    stack.stop_now("alerts")
    stack.start_now("alerts")


@pytest.mark.parametrize("victim", ["alerts", "rabbitmq", "postgres"])
async def test_the_last_that_was_accepted_decides_who_is_asked(stack: Stack, victim: str) -> None:
    await stack.sandbox.reset()
    async with Flapping(stack) as load:
        await load.more(60)
        await stack.sandbox.behave("slack", status=500)
        if victim == "alerts":
            await stack.kill9(victim)
            await load.more(60)
            await stack.start(victim)
        else:
            server = getattr(stack, victim)
            await asyncio.to_thread(kill_with_children, server)
            await load.more(60)
            await asyncio.to_thread(server.start)
        await stack.sandbox.behave("slack", status=200)
        await load.more(60)
    assert set(load.answers) <= {202, 503, 409}, load.answers
    check = await eventually(stack.balanced, 90)
    assert (check["failed"], check["unread"]) == (0, 0)

    known = stack.query(
        "SELECT alert_id::text, reason FROM alerts.delivery WHERE alert_id = ANY(%s::uuid[])"
        " UNION ALL SELECT alert_id::text, 'repeat' FROM alerts.duplicate"
        " WHERE alert_id = ANY(%s::uuid[])",
        list(load.accepted),
        list(load.accepted),
    )
    assert {row.alert_id for row in known} == set(load.accepted)
    assert {row.reason for row in known} <= {"ok", "repeat", "resolved"}
    received = {str(one["body"]["text"]) for one in await stack.sandbox.received("slack")}
    shown = {row.alert_id for row in known if row.reason == "ok"}
    for alert_id in shown:
        assert any(text.endswith(load.accepted[alert_id]) for text in received)

    cases = stack.query(
        "SELECT dedup_key, count(*) FILTER (WHERE state = 'open') AS open FROM alerts.alert_case"
        " WHERE dedup_key = ANY(%s) GROUP BY dedup_key",
        list(load.fires),
    )
    assert {row.dedup_key: row.open for row in cases} == {
        thing: int(fires) for thing, fires in load.fires.items()
    }
