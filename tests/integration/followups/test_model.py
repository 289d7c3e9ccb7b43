"""A model reads what no rule is sure of: within two seconds, and outside transactions."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from services.followups.http.model import SECONDS, Model
from services.followups.store import tables
from tests.integration.followups.conftest import CONFIG, World
from tests.unit.followups.test_hints import VAGUE

ONLY_WISH = {"wish": ("remont łazienki", True)}
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

    async def says(self, message: str) -> dict[str, Any]:
        """Let a visitor write, and return the card of the answer."""
        said = {"message": message, "session_id": "s1"}
        status, told = await self.world.post("/api/chatbot/chat", said)
        assert status == 200
        return {fact["name"]: (fact["value"], fact["sure"]) for fact in told["card"]}

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
async def standin(engine: AsyncEngine) -> AsyncIterator[Standin]:
    made = Standin(World(engine))
    theirs = web.Application()
    theirs.router.add_post("/v1/chat/completions", made.answer)
    async with TestServer(theirs) as server:
        url, key = str(server.make_url("/v1/chat/completions")), SecretStr("of-the-model")
        async with made.world.serving(Model(url, "small", key, CONFIG.kinds)):
            await made.says("remont łazienki")
            assert made.asked == []
            yield made


async def test_a_message_that_is_unclear_is_read_by_the_model_outside_a_transaction(
    standin: Standin,
) -> None:
    assert await standin.says(VAGUE) == ONLY_WISH | {"area": (5, False)}
    assert standin.in_transaction == [0]
    [asked] = standin.asked
    assert [each["role"] for each in asked["messages"]] == ["system", "user"]
    assert asked["messages"][1]["content"] == VAGUE
    assert len(await standin.world.said()) == 4, "each turn was stored once"


@pytest.mark.parametrize(
    "content",
    [
        "no JSON", {"kind": "marry me", "facts": []}, {"facts": [{"name": "email", "quote": "5"}]},
        {"facts": [{"name": "consent", "quote": "chyba 5"}]}, {"facts": [{"name": "area"}]}, "[]",
        '{"facts": [' + '{"name": "area", "quote": "chyba 5"},' * 9000,
    ],
)  # fmt: skip
async def test_a_bad_answer_changes_nothing(standin: Standin, content: Any) -> None:
    standin.content = content
    assert await standin.says(VAGUE) == ONLY_WISH
    assert len(standin.asked) == 1


async def test_a_model_that_fails_or_is_slow_costs_two_seconds_and_no_reply(
    standin: Standin,
) -> None:
    standin.status = 500
    assert await standin.says(VAGUE) == ONLY_WISH
    standin.status, standin.seconds = 200, 30
    began = asyncio.get_running_loop().time()
    assert await standin.says(f"{VAGUE}, no nie wiem") == ONLY_WISH
    assert SECONDS <= asyncio.get_running_loop().time() - began < SECONDS + 3
