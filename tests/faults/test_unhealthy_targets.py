"""One target is unhealthy under load: nothing is lost, and the others are not delayed."""

import asyncio
import json
import uuid
from functools import partial
from typing import Any

import pytest

from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.load import Load
from tests.support.records import per_alert
from tests.support.stack import Stack

pytestmark = [pytest.mark.faults, pytest.mark.promise("P1", "P6")]
ALERTS = 60
MEANWHILE = 20

# What the sick target does. The first kind certainly takes nothing; of the second kind it takes
# the alert, and only its answer is lost: to send that one again is all that can be done.
REFUSING: list[tuple[str, dict[str, Any]]] = [
    ("slack", {"status": 500}),
    ("slack", {"hang": True}),
    ("slack", {"close": True}),
    ("slack", {"reset": True}),
    ("slack", {"cut": True}),
    *((target, {"error": "something broke"}) for target in ("slack", "monday", "sms")),  # in a 200
]
LOSING: list[dict[str, Any]] = [
    {"hang": True, "accepted": True},
    {"close": True, "accepted": True},
    {"reset": True, "accepted": True},
    {"cut": True, "accepted": True},
    {"drip_seconds": 0.1},
    {"delay_seconds": 5},
]


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> None:
    await stack.sandbox.reset()


async def accept(stack: Stack, target: str, count: int) -> dict[str, str]:
    """Send alerts as a client does, some at a time; their texts by the ids it was given."""
    given: dict[str, str] = {}
    texts = iter([f"{target} {uuid.uuid4()}" for _ in range(count)])

    async def client() -> None:
        for text in texts:
            body = {"event_type": "slack_alert", "target": target, "payload": {"text": text}}
            answer = await stack.http("POST", "/api/alerts", body, key="service")
            assert answer.status == 202, answer
            given[answer.body["id"]] = text

    await asyncio.gather(*(client() for _ in range(8)))
    return given


async def attempted(stack: Stack, target: str) -> bool:
    """Say whether the breaker has had its reasons, and a trial."""
    return len(await stack.sandbox.received(target, refused_too=True)) > 5


async def become_unhealthy(stack: Stack, target: str, **behaviour: Any) -> dict[str, str]:
    """Let alerts wait for a sick target while those of another one arrive; then heal it."""
    await stack.sandbox.behave(target, **behaviour)
    waiting = await accept(stack, target, ALERTS)
    other = await accept(stack, "webhook", MEANWHILE)
    await eventually(
        lambda: stack.sandbox.received("webhook"), 15, so=lambda found: len(found) >= MEANWHILE
    )
    await eventually(lambda: attempted(stack, target), 30)
    assert await stack.balanced() is None  # or the target was not sick
    await stack.sandbox.behave(target, status=200)
    check = await eventually(stack.balanced, 90)
    assert (check["failed"], check["in_doubt"], check["discarded"]) == (0, 0, 0)
    got = per_alert(await stack.sandbox.received("webhook"), other)
    assert {len(answers) for answers in got.values()} == {1}
    for alert_id in (*waiting, *other):
        assert (await stack.state(alert_id))["state"] == "delivered"
    return waiting


@pytest.mark.parametrize(("target", "behaviour"), REFUSING, ids=json.dumps)
async def test_alerts_an_unhealthy_target_refused_are_delivered_once_it_heals(
    stack: Stack, target: str, behaviour: dict[str, Any]
) -> None:
    waiting = await become_unhealthy(stack, target, **behaviour)
    got = per_alert(await stack.sandbox.received(target), waiting)
    assert {tuple(answers) for answers in got.values()} == {(200,)}


@pytest.mark.parametrize("behaviour", LOSING, ids=json.dumps)
async def test_a_duplicate_arrives_only_after_a_lost_response(
    stack: Stack, behaviour: dict[str, Any]
) -> None:
    waiting = await become_unhealthy(stack, "slack", **behaviour)
    got = per_alert(await stack.sandbox.received("slack"), waiting)
    assert all(answers.count(200) == 1 for answers in got.values()), got
    lost = sum(answers.count(None) for answers in got.values())
    assert lost > 5
    assert sum(map(len, got.values())) == ALERTS + lost


async def test_mail_whose_server_hangs_or_resets_before_the_dot_arrives_once(stack: Stack) -> None:
    await stack.sandbox.behave("email", stage="data", hang=True)
    waiting = await accept(stack, "email", MEANWHILE)
    await eventually(lambda: attempted(stack, "email"), 30)
    await stack.sandbox.behave("email", stage="rcpt", reset=True)
    before = len(await stack.sandbox.received("email", refused_too=True))
    await eventually(
        lambda: stack.sandbox.received("email", refused_too=True),
        30,
        so=lambda found: len(found) > before,
    )
    await stack.sandbox.behave("email", status=200)
    check = await eventually(stack.balanced, 90)
    assert (check["failed"], check["in_doubt"], check["discarded"]) == (0, 0, 0)
    got = per_alert(await stack.sandbox.received("email"), waiting)
    assert {tuple(answers) for answers in got.values()} == {(250,)}


async def test_alerts_outlive_periods_in_which_their_target_refuses_us_and_kills_of_alerts(
    stack: Stack,
) -> None:
    critical: dict[str, str] = {}
    refused = (
        "SELECT 1 FROM alerts.delivery WHERE target = 'slack' AND state IN ('pending', 'sending')"
        " AND reason IN ('unauthorized', 'gone') LIMIT 1"
    )

    async with Load(stack, clients=4) as load:
        for status in (401, 404, 403, 410):
            await stack.sandbox.behave("slack", status=status)
            await eventually(partial(stack.is_held, "slack", status), 30)
            body = {"event_type": "slack_alert", "severity": "critical", "payload": {"text": "x"}}
            for _ in range(5):
                answer = await stack.http("POST", "/api/alerts", body, key="service")
                critical[answer.body["id"]] = "x"
            await load.more(20)
            if status in {404, 410}:
                await stack.kill9("alerts")
                await load.more(10)
                await stack.start("alerts")
                assert await stack.is_held("slack", status)  # it is known to the next process
            if status == 401:
                await eventually(lambda: at_the_fallback(stack, list(critical)), 30)
            await stack.sandbox.behave("slack", status=200)
            # or the next period refuses the same ones, and they fail
            await until(lambda: not stack.query(refused), 60)
            await load.more(20)
    for alert_id in critical:

        async def delivered(alert_id: str = alert_id) -> bool:
            return bool((await stack.state(alert_id))["state"] == "delivered")

        await eventually(delivered, 60)
    check = await eventually(stack.balanced, 90)
    assert (check["failed"], check["in_doubt"]) == (0, 0)
    received = await stack.sandbox.received("slack")
    of_load = [one for one in received if "load" in str(one["body"])]
    got = per_alert(of_load, load.accepted)
    assert {len(answers) for answers in got.values()} <= {1, 2}  # 2: killed before its record
    attempts = "SELECT max(attempts) FROM alerts.delivery WHERE target = 'slack'"
    assert stack.query(attempts)[0][0] <= 1 + 2  # each kill may use one of those in flight


async def at_the_fallback(stack: Stack, ids: list[str]) -> bool:
    found = stack.query(
        "SELECT state FROM alerts.delivery WHERE target = 'email' AND alert_id = ANY(%s::uuid[])",
        ids,
    )
    return [row.state for row in found] == ["delivered"] * len(ids)
