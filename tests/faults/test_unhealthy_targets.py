"""One target is unhealthy under load: nothing is lost, and the others are not delayed."""

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.support.eventually import eventually
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


def per_alert(
    received: Sequence[Mapping[str, Any]], given: Mapping[str, str]
) -> dict[str, list[int | None]]:
    """Return what was answered each time that an accepted alert was taken (None: nothing came).

    :param given: each accepted id, with a text that only this alert has
    :raises AssertionError: one was never taken, or something arrived that nobody sent
    """
    bodies = [(str(one["body"]), one["answered"]) for one in received]
    got = {
        alert_id: [answered for body, answered in bodies if text in body]
        for alert_id, text in given.items()
    }
    lost = [alert_id for alert_id, answers in got.items() if not answers]
    assert not lost, f"{len(lost)} of {len(given)} accepted were never received: {lost[:3]}"
    assert sum(map(len, got.values())) == len(bodies)
    return got


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
