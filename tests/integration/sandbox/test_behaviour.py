import asyncio
import errno
import time
from typing import Any

import pytest
from aiohttp import (
    ClientOSError,
    ClientPayloadError,
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


async def test_a_status_is_answered_until_200_resets_it(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", status=500)
    sick = [await say(client), await say(client)]
    await sandbox.behave("slack", status=200)
    healed = await say(client)

    assert (sick, healed) == ([500, 500], 200)
    assert len(await sandbox.received("slack")) == 1
    assert await answers_of(sandbox) == [500, 500, 200]


async def test_a_429_carries_its_retry_after(client: ClientSession, sandbox: Sandbox) -> None:
    await sandbox.behave("slack", status=429, retry_after=7)

    async with client.post("/slack", json={"text": "hi"}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")


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


async def test_a_hanging_target_never_answers(client: ClientSession, sandbox: Sandbox) -> None:
    await sandbox.behave("slack", hang=True)

    with pytest.raises(TimeoutError):
        await say(client, timeout=SHORT)

    assert await eventually(lambda: answers_of(sandbox)) == [None]
    assert await sandbox.received("slack") == []


async def test_a_closing_target_disconnects_without_an_answer(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", close=True)

    with pytest.raises(ServerDisconnectedError):
        await say(client)

    assert await sandbox.received("slack") == []
    assert await answers_of(sandbox) == [None]


async def test_a_lost_answer_leaves_the_message_accepted(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", close=True, accepted=True)

    with pytest.raises(ServerDisconnectedError):
        await say(client)

    assert [item["answered"] for item in await sandbox.received("slack")] == [None]


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_resetting_target_sends_no_answer_and_no_end(
    client: ClientSession, sandbox: Sandbox, *, accepted: bool
) -> None:
    await sandbox.behave("slack", reset=True, accepted=accepted)

    with pytest.raises(ClientOSError) as failed:
        await say(client)

    assert failed.value.errno == errno.ECONNRESET
    assert len(await sandbox.received("slack")) == accepted
    assert await answers_of(sandbox) == [None]


async def test_an_answer_is_cut_before_its_end(client: ClientSession, sandbox: Sandbox) -> None:
    await sandbox.behave("slack", cut=True, accepted=True)

    async with client.post("/slack", json={"text": "hi"}) as answer:
        assert answer.status == 200
        with pytest.raises(ClientPayloadError):
            await answer.read()

    assert [item["answered"] for item in await sandbox.received("slack")] == [None]


async def test_an_answer_drips_byte_by_byte_and_arrives_whole(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", drip_seconds=0.001)
    async with client.post("/slack", json={"text": "hi"}) as answer:
        assert (answer.status, await answer.text()) == (200, "ok")
    await sandbox.behave("slack", drip_seconds=0.001, status=429, retry_after=7)
    async with client.post("/slack", json={"text": "hi"}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        assert await answer.text() == "told to answer 429"

    assert await answers_of(sandbox) == [200, 429]


async def test_a_message_whose_client_leaves_during_a_drip_is_received(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", drip_seconds=0.1)

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


async def test_fail_next_goes_with_any_failure(client: ClientSession, sandbox: Sandbox) -> None:
    await sandbox.behave("slack", status=503, fail_next=1)
    assert [await say(client), await say(client)] == [503, 200]

    await sandbox.behave("slack", close=True, fail_next=1)
    with pytest.raises(ServerDisconnectedError):
        await say(client)
    assert await say(client) == 200


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


async def test_an_unknown_target_has_no_behaviour(client: ClientSession) -> None:
    async with client.put("/behaviour/pager", json={"status": 500}) as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")


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
