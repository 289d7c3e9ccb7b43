"""An erasure that was ordered is said to be, whatever fails after it."""

import base64
from datetime import UTC, datetime
from typing import Any
from unittest.mock import AsyncMock, Mock
from uuid import uuid4

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer

from services.console.gateway import Gateway
from services.console.pages.person import PersonPage
from services.console.store.sessions import Visitor
from services.console.texts import TEXTS

EN = TEXTS["en"]
EMAIL = "jan@example.com"
KEYS = "o1:" + base64.b64encode(b"o" * 32).decode()
OFFICER = Visitor(
    uuid4(), "ewa@example.com", "Ewa Lis", ("privacy",), "en", b"", datetime.now(UTC)
)  # fmt: skip


@pytest.mark.parametrize(("status", "said"), [(200, "person_erasing"), (202, "person_in_flight")])
async def test_an_erasure_that_was_ordered_is_said_though_its_trail_is_away(
    status: int, said: str, aiohttp_server: AiohttpServer, aiohttp_client: AiohttpClient
) -> None:
    ordered: list[Any] = []

    async def trail(_: web.Request) -> web.Response:
        if ordered:
            return web.json_response({"detail": "the database is unavailable"}, status=503)
        return web.json_response({"subject": "random-id", "entries": [], "erasure": None})

    async def erase(request: web.Request) -> web.Response:
        ordered.append(await request.json())
        return web.json_response({"success": True}, status=status)

    gateway = web.Application()
    gateway.router.add_get("/api/consent/audit/{email}", trail)
    gateway.router.add_post("/api/consent/erase", erase)
    url = str((await aiohttp_server(gateway)).make_url("/"))

    async def record(*_: Any, **__: Any) -> None:
        if ordered:
            raise ConnectionError

    async with Gateway.open(url, KEYS) as opened:
        person = PersonPage(Mock(gateway=opened, looks=AsyncMock(record=record)))
        act = person.acts()["/erase"]

        async def press(request: web.Request) -> web.StreamResponse:
            return await person.posted(request, OFFICER, act)

        console = web.Application()
        console.router.add_post("/console/person/erase", press)
        client = await aiohttp_client(console)
        form = {"who": EMAIL, "again": EMAIL}
        async with client.post("/console/person/erase", data=form) as answer:
            text = await answer.text()
    assert (answer.status, ordered) == (200, [{"email": EMAIL}])
    assert EN[said] in text
    assert EN["away"] not in text
