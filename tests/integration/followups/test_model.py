"""A model reads what no rule is sure of: within two seconds, and outside transactions."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from libs.common.http.application import create_app
from services.followups.http.chat import ChatRoutes
from services.followups.http.model import SECONDS, Model
from services.followups.store import tables
from tests.integration.followups.conftest import CONFIG, World, link
from tests.integration.followups.test_http import HEADERS, KEY, Post
from tests.unit.followups.test_hints import VAGUE

PATH = "/api/chatbot/chat"
READ = {"kind": None, "facts": [{"name": "area", "quote": "chyba 5"}]}


class Standin:
    """Speaks the part of OpenAI's API that is used."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[dict[str, Any]] = []
        self.content: Any = READ
        self.status = 200
        self.seconds = 0.0
        self.in_transaction: list[int] = []

    async def answer(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer of-the-model"
        self.asked.append(await request.json())
        async with self.world.engine.begin() as tx:
            locked = sa.select(tables.chat_conversations.c.id).with_for_update(nowait=True)
            assert len((await tx.execute(locked)).all()) == 1
            self.in_transaction.append(
                await tx.scalar(
                    sa.text(
                        "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                        " AND datname = current_database() AND state LIKE 'idle in transaction%'"
                    )
                )
            )
        await asyncio.sleep(self.seconds)
        content = self.content if isinstance(self.content, str) else json.dumps(self.content)
        body = {"choices": [{"message": {"content": content}}]}
        return web.json_response(body, status=self.status)


@pytest.fixture
def standin(world: World) -> Standin:
    return Standin(world)


@pytest.fixture
async def post(standin: Standin) -> AsyncIterator[Post]:
    theirs = web.Application()
    theirs.router.add_post("/v1/chat/completions", standin.answer)
    async with TestServer(theirs) as server:
        model = Model(
            str(server.make_url("/v1/chat/completions")), "small", SecretStr("of-the-model"),
            CONFIG.kinds,
        )  # fmt: skip
        app = create_app(internal_key=KEY)
        ChatRoutes(standin.world.engine, CONFIG, link, model).add_to(app)
        async with TestClient(TestServer(app), headers=HEADERS) as client:

            async def send(path: str, body: dict[str, Any]) -> tuple[int, Any]:
                async with client.post(path, json=body | {"session_id": "s1"}) as response:
                    return response.status, await response.json()

            status, _ = await send(PATH, {"message": "remont łazienki"})
            assert (status, standin.asked) == (200, [])
            yield send


def card(answer: dict[str, Any]) -> dict[str, Any]:
    return {fact["name"]: (fact["value"], fact["sure"]) for fact in answer["card"]}


async def test_a_message_that_is_unclear_is_read_by_the_model_outside_a_transaction(
    post: Post, standin: Standin
) -> None:
    status, answer = await post(PATH, {"message": f"{VAGUE}"})
    assert status == 200
    assert card(answer) == {"wish": ("remont łazienki", True), "area": (5, False)}
    assert standin.in_transaction == [0]
    [asked] = standin.asked
    assert [each["role"] for each in asked["messages"]] == ["system", "user"]
    assert asked["messages"][1]["content"] == VAGUE
    async with standin.world.engine.begin() as tx:
        count = sa.select(sa.func.count()).select_from(tables.chat_message)
        assert await tx.scalar(count) == 4, "each turn was stored once"


@pytest.mark.parametrize(
    "content",
    [
        "no JSON", {"kind": "marry me", "facts": []}, {"facts": [{"name": "email", "quote": "5"}]},
        {"facts": [{"name": "consent", "quote": "chyba 5"}]}, {"facts": [{"name": "area"}]}, "[]",
        '{"facts": [' + '{"name": "area", "quote": "chyba 5"},' * 9000,
    ],
)  # fmt: skip
async def test_a_bad_answer_changes_nothing(post: Post, standin: Standin, content: Any) -> None:
    standin.content = content
    status, answer = await post(PATH, {"message": VAGUE})
    assert (status, card(answer)) == (200, {"wish": ("remont łazienki", True)})
    assert len(standin.asked) == 1


async def test_a_model_that_fails_or_is_slow_costs_two_seconds_and_no_reply(
    post: Post, standin: Standin
) -> None:
    standin.status = 500
    status, answer = await post(PATH, {"message": VAGUE})
    assert (status, card(answer)) == (200, {"wish": ("remont łazienki", True)})
    standin.status, standin.seconds = 200, 30
    began = asyncio.get_running_loop().time()
    status, answer = await post(PATH, {"message": f"{VAGUE}, no nie wiem"})
    assert (status, card(answer)) == (200, {"wish": ("remont łazienki", True)})
    assert SECONDS <= asyncio.get_running_loop().time() - began < SECONDS + 3
