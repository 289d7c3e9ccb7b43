"""A chat's session: one that can be guessed opens nothing."""

import json
import uuid
from collections.abc import Mapping

import pytest
from aiohttp import web

from services.gateway.intake.sessions import is_strong
from tests.integration.gateway.conftest import Gateway, Owner

CHAT = "/api/chatbot/chat"


async def echo(request: web.Request) -> web.StreamResponse:
    return web.json_response({"session_id": (await request.json())["session_id"]})


async def say(gateway: Gateway, given: Mapping[str, str] = {}, **headers: str) -> str:
    answer = await gateway.call("POST", CHAT, {"message": "Dzień dobry", **given}, **headers)
    assert answer.status == 200
    return str(answer.body["session_id"])


async def test_two_visitors_with_the_same_guessable_session_are_two_conversations(
    gateway: Gateway, owner: Owner
) -> None:
    owner.handle = echo
    found = {await say(gateway, {"session_id": "s1"}) for _ in range(3)} | {await say(gateway)}
    assert len(found) == 4
    assert "s1" not in found
    assert all(is_strong(each) for each in found)
    (first, *_) = found
    assert await say(gateway, {"session_id": first}) == first


async def test_a_session_with_128_bits_is_sent_on_with_its_message_untouched(
    gateway: Gateway, owner: Owner
) -> None:
    for session in (str(uuid.uuid4()), uuid.uuid4().hex, f"s-{uuid.uuid4().hex}"):
        body = json.dumps({"session_id": session, "message": "żółw  "}).encode()
        headers = {"Content-Type": "application/json"}
        assert (await gateway.send("POST", CHAT, headers, data=body)).status == 200
        assert owner.received[-1]["body"].encode() == body


@pytest.mark.parametrize("session", ["anna.kowalska.wroclaw@example.pl", "a" * 40, "123", "tour-1"])
def test_a_guessable_session_id_is_replaced(session: str) -> None:
    assert not is_strong(session)


async def test_a_body_that_the_upstream_refuses_is_still_forwarded(
    gateway: Gateway, owner: Owner
) -> None:
    before = len(owner.received)
    for session in ("", "a b", "x" * 201, 7, None):
        await gateway.call("POST", CHAT, {"message": "x", "session_id": session})
    sent = [json.loads(each["body"])["session_id"] for each in owner.received[before:]]
    assert sent == ["", "a b", "x" * 201, 7, None]


async def test_a_guessable_key_holds_no_session_and_one_of_its_own_does(
    gateway: Gateway, owner: Owner
) -> None:
    owner.handle = echo
    for weak in ({"session_id": "guest"}, {}):
        own = str(uuid.uuid4())  # of a page that knows no session yet
        keys = ("1", "a" * 40, "order-1042", "1", own, own, str(uuid.uuid4()))
        found = [await say(gateway, weak, **{"Idempotency-Key": key}) for key in keys]
        assert found[4] == found[5]
        assert len({*found}) == 6
