"""P2 on the whole system: POST /api/alerts is answered 202 with any one component down."""

import asyncio
import uuid

import pytest

from tests.support.eventually import eventually
from tests.support.stack import Stack

pytestmark = pytest.mark.faults


async def accept(stack: Stack, text: str) -> str:
    answer = await stack.http(
        "POST",
        "/api/alerts",
        {"event_type": "slack_alert", "payload": {"text": text}},
        key="service",
        headers={"Idempotency-Key": str(uuid.uuid4())},
    )
    assert answer.status == 202, answer.body
    return str(answer.body["id"])


async def delivered(stack: Stack, ids: list[str]) -> None:
    async def all_delivered() -> bool:
        answers = [await stack.http("GET", f"/api/alerts/{i}", key="service") for i in ids]
        return all(a.status == 200 and a.body["state"] == "delivered" for a in answers)

    await eventually(all_delivered, 60)

    async def balanced() -> bool:
        answer = await stack.http("GET", "/api/ledger/check", key="admin")
        return answer.status == 200 and bool(answer.body["ok"])

    await eventually(balanced, 30)


@pytest.mark.parametrize("component", ["rabbitmq", "postgres", "redis"])
async def test_an_alert_is_taken_and_delivered_with_one_server_away(
    stack: Stack, component: str
) -> None:
    ids = [await accept(stack, "before")]
    server = getattr(stack, component)
    await asyncio.to_thread(server.kill)
    try:
        ids += [await accept(stack, f"with {component} away {number}") for number in range(5)]
    finally:
        await asyncio.to_thread(server.start)
    ids.append(await accept(stack, "after"))
    await delivered(stack, ids)


@pytest.mark.parametrize("service", ["alerts", "consent", "followups"])
async def test_an_alert_is_taken_and_delivered_with_one_service_away(
    stack: Stack, service: str
) -> None:
    ids = [await accept(stack, "before")]
    await stack.kill9(service)
    ids += [await accept(stack, f"with {service} away {number}") for number in range(5)]
    await stack.start(service)
    await delivered(stack, ids)
