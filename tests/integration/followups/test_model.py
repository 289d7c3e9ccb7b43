"""The chat with a model: it words replies, and nothing hangs on it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.broker import Broker
from libs.common.web import create_app
from services.followups import model
from services.followups.http import Routes
from services.followups.model import ChatModel
from services.followups.store import conversations, tables
from tests.integration.followups.conftest import CONFIG, World
from tests.support.eventually import eventually
from tests.support.sandbox import Sandbox

KEY = "internal-key-of-this-test"
Say = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def seconds() -> float:
    """Of the model's time."""
    return 5.0


@pytest.fixture
async def say(engine: AsyncEngine, sandbox: Sandbox, seconds: float) -> AsyncIterator[Say]:
    async with (
        Broker.connect("amqp://127.0.0.1:1/", "followups") as broker,
        ChatModel.open(
            f"{sandbox.url}/model", "secret", "some-model", CONFIG.instructions, seconds=seconds
        ) as opened,
    ):
        app = create_app(internal_key=KEY)
        Routes(engine, broker, CONFIG, opened).add_to(app)
        async with TestClient(TestServer(app), headers={"X-Internal-Key": KEY}) as client:

            async def send(message: str, **more: Any) -> dict[str, Any]:
                body = {"message": message, "session_id": "s"} | more
                async with client.post("/api/chatbot/chat", json=body) as answer:
                    assert answer.status == 200
                    told: dict[str, Any] = await answer.json()
                    return told

            yield send


async def asked(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [one["body"] for one in await sandbox.received("model", refused_too=True)]


async def stored(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as tx:
        table = tables.chat_message
        return list(await tx.scalars(sa.select(table.c.body).order_by(table.c.id)))


async def test_a_model_words_the_reply_and_that_is_what_is_kept(
    say: Say, sandbox: Sandbox, engine: AsyncEngine
) -> None:
    answer = await say("dzień dobry, remont kuchni")
    assert answer["reply"] == "The model heard: dzień dobry, remont kuchni"
    assert await stored(engine) == ["dzień dobry, remont kuchni", answer["reply"]]
    await say("80 m2")
    first, second = await asked(sandbox)
    assert first["model"] == "some-model"
    assert CONFIG.texts["pl"]["ask_area"] in first["messages"][0]["content"]
    assert [message["role"] for message in second["messages"]] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip


async def test_addresses_and_phone_numbers_do_not_leave_and_come_back_into_the_reply(
    say: Say, sandbox: Sandbox
) -> None:
    answer = await say("jestem Ala, ala@example.com, 600 700 800")
    [request] = await asked(sandbox)
    assert "ala@" not in json.dumps(request)
    assert "700" not in json.dumps(request)
    assert answer["reply"] == "The model heard: jestem Ala, ala@example.com, 600 700 800"


async def test_consent_is_never_left_to_the_model(say: Say, sandbox: Sandbox, world: World) -> None:
    answer = await say("remont 80 m2, 250 tys., od marca, ala@example.com")
    assert CONFIG.texts["pl"]["consent_wording"] in answer["reply"]
    answer = await say("Tak, zgadzam się")
    assert CONFIG.texts["pl"]["consent_given"] in answer["reply"]
    assert await asked(sandbox) == []
    assert len(await world.outbox("grant.record")) == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        {"status": 500}, {"status": 302}, {"status": 429}, {"hang": True}, {"close": True},
        {"reset": True}, {"cut": True}, {"error": "no JSON"}, {"error": "{}"},
        {"error": '{"choices": [{"message": {"content": ""}}]}'},
        {"error": '{"choices": [{"message": {"content": 7}}]}'},
        {"error": '{"choices": [{"message": {"content": "your [contact 9]"}}]}'},
        {"drip_seconds": 0.2},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("seconds", [1.0])
async def test_a_model_that_fails_costs_its_time_at_most_and_the_dialogue_answers(
    say: Say, sandbox: Sandbox, engine: AsyncEngine, behaviour: dict[str, Any], seconds: float
) -> None:
    await sandbox.behave("model", **behaviour)
    start = time.monotonic()
    answer = await say("remont kuchni")
    assert time.monotonic() - start < seconds + 2
    assert CONFIG.texts["pl"]["ask_area"] in answer["reply"]
    assert (await stored(engine))[-1] == answer["reply"]


async def test_a_model_that_failed_is_left_alone_for_a_moment(
    say: Say, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sandbox.behave("model", status=500, fail_next=1)
    for _ in range(3):
        await say("remont kuchni")
    assert len(await asked(sandbox)) == 1
    monkeypatch.setattr(model.time, "monotonic", lambda clock=time.monotonic: clock() + 31)
    assert "The model heard" in (await say("80 m2"))["reply"]


@pytest.mark.parametrize("question", ["said_before", "reword"])
async def test_a_turn_is_answered_and_taken_once_with_the_database_away_after_its_commit(
    say: Say, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    async def away(*_: Any) -> None:
        raise DisconnectionError

    monkeypatch.setattr(conversations, question, away)
    answer = await say("remont kuchni")
    assert CONFIG.texts["pl"]["ask_area"] in answer["reply"]
    assert await stored(engine) == ["remont kuchni", answer["reply"]]


async def test_while_a_model_thinks_the_turn_is_stored_and_holds_nothing(
    say: Say, sandbox: Sandbox, world: World
) -> None:
    await sandbox.behave("model", delay_seconds=4)
    slow = asyncio.create_task(say("remont kuchni, budżet 60 tys., ala@example.com"))
    await eventually(lambda: world.outbox("lead.qualified"))
    assert not slow.done()
    other = await asyncio.wait_for(world.say("80 m2", "s"), 3)  # another tab, at once
    assert other.score > 0
    await slow
