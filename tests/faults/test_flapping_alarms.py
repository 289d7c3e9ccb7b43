"""Alarms that fire, rise, end and fire again while processes and servers are killed.

Messages overtake each other: while RabbitMQ is away, alerts take the other way. Whatever came
first, the last that was accepted decides whether somebody is asked.
"""

import asyncio
import uuid
from functools import partial

import pytest

from tests.support.cases import sections
from tests.support.eventually import eventually
from tests.support.load import PAUSE_SECONDS, Load, rounds
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
    stack.restart_now("alerts")


@pytest.mark.parametrize(
    ("victim", "status"),
    [
        *((victim, 500) for victim in ("alerts", "rabbitmq", "postgres")),
        ("alerts", 401),
        ("rabbitmq", 404),
        ("postgres", 401),
    ],
)
async def test_the_last_that_was_accepted_decides_who_is_asked(
    stack: Stack, victim: str, status: int
) -> None:
    await stack.sandbox.reset()
    async with Flapping(stack) as load:
        await load.more(60)
        await stack.sandbox.behave("slack", status=status)
        if status != 500:
            await eventually(partial(stack.is_held, "slack", status), 30)
            await load.more(60)
        async with stack.without(victim):
            await load.more(60)
        if victim == "alerts" and status != 500:
            assert await stack.is_held("slack", status), "it is known to the next process"
        await stack.sandbox.behave("slack", status=200)
        await load.more(60)
    assert set(load.answers) <= {202, 503, 409}, load.answers
    check = await eventually(stack.balanced, 90)
    assert (check["failed"], check["unread"]) == (0, 0)

    known = stack.query(
        "SELECT alert_id::text, target, reason FROM alerts.delivery"
        " WHERE alert_id = ANY(%s::uuid[])"
        " UNION ALL SELECT alert_id::text, '', 'repeat' FROM alerts.duplicate"
        " WHERE alert_id = ANY(%s::uuid[])",
        list(load.accepted),
        list(load.accepted),
    )
    assert {row.alert_id for row in known} == set(load.accepted)
    # Those of a target that refuses us, unless the alarm ended before.
    moved = {row.alert_id for row in known if row.reason == "fallback"}
    assert status != 500 or not moved
    assert {row.reason for row in known} <= {"ok", "repeat", "resolved", "fallback"}
    received = {
        target: "\n".join(str(one["body"]) for one in await stack.sandbox.received(target))
        for target in ("slack", "email")
    }
    shown = {(row.alert_id, row.target) for row in known if row.reason == "ok"}
    assert moved <= {alert_id for alert_id, target in shown if target == "email"}
    for alert_id, target in shown:
        assert load.accepted[alert_id] in received[target]

    cases = stack.query(
        "SELECT dedup_key, count(*) FILTER (WHERE state = 'open') AS open FROM alerts.alert_case"
        " WHERE dedup_key = ANY(%s) GROUP BY dedup_key",
        list(load.fires),
    )
    assert {row.dedup_key: row.open for row in cases} == {
        thing: int(fires) for thing, fires in load.fires.items()
    }
