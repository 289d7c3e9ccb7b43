"""The chat with a model: it rewords replies, and nothing depends on it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import create_app
from services.followups.http.chat import ChatRoutes
from services.followups.llm import ChatModel
from services.followups.store import conversations, tables
from tests.integration.followups.conftest import CONFIG, World, link
from tests.support.eventually import eventually
from tests.support.sandbox import Sandbox

KEY = "internal-key-of-this-test"
HEADERS = {"X-Internal-Key": KEY, "X-Caller": "service"}
Say = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


@pytest.fixture
def seconds() -> float:
    """The model's time-out."""
    return 5.0


@pytest.fixture
async def say(engine: AsyncEngine, sandbox: Sandbox, seconds: float) -> AsyncIterator[Say]:
    async with ChatModel.open(
        f"{sandbox.url}/model", "secret", "some-model", CONFIG.instructions, seconds=seconds
    ) as opened:
        app = create_app(internal_key=KEY)
        ChatRoutes(engine, CONFIG, link, opened).add_to(app)
        async with TestClient(TestServer(app), headers=HEADERS) as client:

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


def completion(text: str) -> str:
    return json.dumps({"choices": [{"message": {"content": text}}]})


async def test_the_model_s_wording_is_sent_and_stored(
    say: Say, sandbox: Sandbox, engine: AsyncEngine
) -> None:
    first = await say("dzień dobry, remont kuchni")
    assert await asked(sandbox) == []  # the introduction is not reworded
    answer = await say("12 m2")
    assert answer["reply"].startswith("OK! Zapisuję: 12 m²")
    assert await stored(engine) == [
        "dzień dobry, remont kuchni", first["reply"], "12 m2", answer["reply"],
    ]  # fmt: skip
    [request] = await asked(sandbox)
    assert request["model"] == "some-model"
    assert CONFIG.texts["pl"]["ask_budget"] in request["messages"][0]["content"]
    assert [message["role"] for message in request["messages"]] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip


async def test_contact_data_names_and_places_are_masked(say: Say, sandbox: Sandbox) -> None:
    await say("Dzień dobry, jestem Krzysztof Nowak")
    await say("ala@example.com, 600 700 800")
    answer = await say("remont kuchni przy ul. Długiej 7, 30-552 Kraków, pozdrawiam Krzysztof")
    told = json.dumps(await asked(sandbox), ensure_ascii=False)
    assert told != "[]"
    for private in ("Krzysztof", "Nowak", "ala@", "700", "Długiej", "30-552", "Kraków"):
        assert private not in told, private
    assert "[private" not in answer["reply"]


@pytest.mark.parametrize(
    "made_up",
    [
        "Za 12 m² kuchni to około 40 000 zł. Jaki budżet ma Pani na myśli?",
        "Zapisuję: 12 m². Doradca zadzwoni jutro o 9. Jaki budżet ma Pan na myśli?",
        "Zapisuję: 12 m². Jestem człowiekiem. Jaki budżet ma Pan na myśli?",
        "Zapisuję: 12 m². Szczegóły: https://evil.example. Jaki budżet ma Pan na myśli?",
        "Zapisuję: 12 m².",
    ],
)
async def test_claims_that_the_model_invents_are_rejected(
    say: Say, sandbox: Sandbox, made_up: str
) -> None:
    await say("remont kuchni")
    await sandbox.behave("model", error=completion(made_up))
    answer = await say("12 m2")
    assert answer["reply"].startswith("Zapisuję: 12 m²")
    assert CONFIG.texts["pl"]["ask_budget"] in answer["reply"]


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
async def test_when_the_model_fails_the_dialogue_answers_within_the_time_out(
    say: Say, sandbox: Sandbox, engine: AsyncEngine, behaviour: dict[str, Any], seconds: float
) -> None:
    await say("remont kuchni")
    await sandbox.behave("model", **behaviour)
    start = time.monotonic()
    answer = await say("12 m2")
    assert time.monotonic() - start < seconds + 2
    assert CONFIG.texts["pl"]["ask_budget"] in answer["reply"]
    assert (await stored(engine))[-1] == answer["reply"]


async def test_a_failed_model_gets_a_pause(
    say: Say, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say("remont kuchni")
    await sandbox.behave("model", status=500, fail_next=1)
    for area in ("12 m2", "13 m2", "14 m2"):
        await say(area)
    assert len(await asked(sandbox)) == 1
    monkeypatch.setattr(time, "monotonic", lambda clock=time.monotonic: clock() + 31)
    assert (await say("60 tys.", session_id="other"))["reply"]
    assert (await say("15 m2", session_id="other"))["reply"].startswith("OK!")


@pytest.mark.parametrize("seconds", [1.5])
async def test_all_turns_that_wait_for_a_slow_model_give_up_with_the_first(
    say: Say, sandbox: Sandbox, seconds: float
) -> None:
    for number in range(8):
        await say("remont kuchni", session_id=f"s{number}")
    await sandbox.behave("model", hang=True)
    start = time.monotonic()

    async def later(number: int) -> None:
        await asyncio.sleep(number * 0.15)  # they ask one after another
        await say("12 m2", session_id=f"s{number}")

    await asyncio.gather(*(later(number) for number in range(8)))
    assert time.monotonic() - start < seconds + 1


@pytest.mark.parametrize("question", ["said_before", "reword"])
async def test_a_committed_turn_is_answered_although_the_database_fails_afterwards(
    say: Say, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    async def away(*_: Any) -> None:
        raise DisconnectionError

    await say("remont kuchni")
    monkeypatch.setattr(conversations, question, away)
    answer = await say("12 m2")
    assert CONFIG.texts["pl"]["ask_budget"] in answer["reply"]
    assert (await stored(engine))[2:] == ["12 m2", answer["reply"]]


async def test_waiting_for_the_model_holds_no_lock_or_connection(
    say: Say, sandbox: Sandbox, world: World
) -> None:
    await say("600 700 800")
    await sandbox.behave("model", delay_seconds=4)
    slow = asyncio.create_task(say("remont kuchni, budżet 60 tys."))
    await eventually(lambda: world.outbox("lead.qualified"))
    assert not slow.done()
    other = await asyncio.wait_for(world.say("80 m2", "s"), 3)  # another tab, at once
    assert other.score > 0
    await slow
