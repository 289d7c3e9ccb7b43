import asyncio
import time
from typing import Any

import pytest
from aiohttp import (
    ClientSession,
    ClientTimeout,
    ServerDisconnectedError,
)

from tests.integration.sandbox.test_providers import BEARER, MUTATION, TOKEN, VARIABLES
from tests.support.eventually import eventually
from tests.support.ports import Ports
from tests.support.sandbox import Sandbox, running_sandbox

SHORT = ClientTimeout(total=1)


async def say(client: ClientSession, text: str = "hi", **options: Any) -> int:
    async with client.post("/slack", json={"text": text}, **options) as answer:
        return answer.status


async def answers_of(sandbox: Sandbox, target: str = "slack") -> list[int | None]:
    return [item["answered"] for item in await sandbox.received(target, refused_too=True)]


async def test_a_delay_holds_back_the_answer_and_nothing_else(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", delay_seconds=0.4)
    start = time.monotonic()

    slow = asyncio.create_task(say(client))
    async with client.post(
        "/monday", json={"query": MUTATION, "variables": VARIABLES}, headers=TOKEN
    ) as answer:
        assert answer.status == 200
    assert not slow.done()

    assert await slow == 200
    assert time.monotonic() - start >= 0.4


async def test_a_message_whose_client_leaves_during_a_delay_is_received(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", delay_seconds=60)

    with pytest.raises(TimeoutError):
        await say(client, timeout=SHORT)

    received = await eventually(lambda: sandbox.received("slack"))
    assert [item["answered"] for item in received] == [None]


async def test_fail_next_fails_exactly_so_many_of_concurrent_requests(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", fail_next=5)

    statuses = await asyncio.gather(*(say(client) for _ in range(20)))

    assert sorted(statuses) == [200] * 15 + [500] * 5


async def test_an_error_is_returned_inside_a_200_in_the_target_s_format(
    client: ClientSession, sandbox: Sandbox
) -> None:
    for target in ("slack", "monday", "sms"):
        await sandbox.behave(target, error="no_team")

    async with client.post("/slack", json={"text": "hi"}) as answer:
        assert (answer.status, await answer.text()) == (200, "no_team")
    async with client.post(
        "/monday", json={"query": MUTATION, "variables": VARIABLES}, headers=TOKEN
    ) as answer:
        assert (await answer.json())["errors"][0]["message"] == "no_team"
    form = {"to": "48500600700", "message": "x"}
    async with client.post("/sms", data=form, headers=BEARER) as answer:
        assert (await answer.json())["message"] == "no_team"

    for target in ("slack", "monday", "sms"):
        assert await sandbox.received(target) == []
        assert await answers_of(sandbox, target) == [200]


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("slack", {}),
        ("slack", {"statu": 500}),
        ("slack", {"status": 99}),
        ("slack", {"status": 204}),
        ("slack", {"status": "500"}),
        ("slack", {"status": 500, "hang": True}),
        ("slack", {"status": 200, "close": True}),
        ("slack", {"status": 200, "fail_next": 2}),
        ("slack", {"status": 500, "retry_after": 3}),
        ("slack", {"status": 500, "accepted": True}),
        ("slack", {"delay_seconds": -1}),
        ("slack", {"drip_seconds": 0}),
        ("slack", {"drip_seconds": 1, "close": True}),
        ("slack", {"reset": True, "close": True}),
        ("email", {"drip_seconds": 1}),
        ("email", {"cut": True}),
        ("slack", {"fail_next": 0}),
        ("slack", {"close": True, "stage": "mail"}),
        ("webhook", {"error": "any 200 is success"}),
        ("email", {"status": 302}),
        ("email", {"status": 599}),
        ("email", {"status": 429, "retry_after": 7}),
        ("email", {"error": "SMTP has no such thing"}),
    ],
)
async def test_a_contradictory_behaviour_is_refused_and_changes_nothing(
    client: ClientSession, sandbox: Sandbox, target: str, body: dict[str, Any]
) -> None:
    async with client.put(f"/behaviour/{target}", json=body) as answer:
        assert (answer.status, answer.content_type) == (422, "application/problem+json")
        assert (await answer.json())["errors"]

    assert await say(client) == 200


async def test_sigterm_does_not_wait_for_hanging_requests(ports: Ports) -> None:
    with running_sandbox(ports) as sandbox:
        await sandbox.behave("slack", hang=True)
        async with ClientSession(sandbox.url) as client:
            hanging = asyncio.create_task(say(client))
            await eventually(lambda: sandbox.received("slack", refused_too=True))

            sandbox.process.terminate()

            assert await asyncio.to_thread(sandbox.process.wait, 5) == 0
            with pytest.raises(ServerDisconnectedError):
                await hanging
