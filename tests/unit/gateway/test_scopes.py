"""Each route of the gateway's table opens to who has its scope, and to no one else."""

import re
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from libs.common.http.application import create_app
from libs.common.scopes import Scope
from services.gateway import scopes
from services.gateway.access import Access, Requirements
from services.gateway.clients import Keys, TrustedProxies
from services.gateway.limits import Decision
from tests.support.routes import route_table

ROUTES = {key: requires for key, requires in route_table().items() if key[1] != "/health"}
KEYED = {key: requires for key, requires in ROUTES.items() if requires.scope is not None}
HELD = {
    ("X-API-KEY", "service"): scopes.SERVICE,
    ("X-ADMIN-API-KEY", "admin"): scopes.ADMIN,
}

Client = TestClient[web.Request, web.Application]


class Admitting:
    """Stands for the limiter, the waits and the overrides: it admits everything."""

    def __init__(self) -> None:
        self.policies = dict.fromkeys(
            ("chat", "api", "service", "slack", "health"), ()
        ) | dict.fromkeys(("chat_budget", "write_budget", "withdrawal_budget"), (None,))

    async def decide(self, policy: str, *_: object) -> Decision:
        return Decision(policy, admitted=True, uses=())


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    admitting = cast("Any", Admitting())

    async def opened(_: web.Request) -> web.Response:
        return web.Response()

    async def recorded(request: web.Request, _: object, handler: Any) -> web.StreamResponse:
        return cast("web.StreamResponse", await handler(request))

    access = Access(
        keys=Keys(["service"], ["admin"]),
        proxies=TrustedProxies(()),
        tokens=None,
        limiter=admitting,
        waits=admitting,
        overrides=admitting,
        recorded=recorded,
        shadow=False,
    )
    app = create_app(internal_key=None)
    app.middlewares.append(access.middleware)
    for (method, path), requires in ROUTES.items():
        access.guard(app.router.add_route(method, path, opened), requires)
    async with TestClient(TestServer(app)) as opened_client:
        yield opened_client


async def called(
    client: Client, key: tuple[str, str], headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    method, path = key
    async with client.request(method, re.sub(r"\{\w+\}", "x", path), headers=headers) as answer:
        return answer.status, await answer.json() if answer.status != 200 else {}


def test_every_scope_opens_a_route() -> None:
    assert {requires.scope for requires in KEYED.values()} == {*Scope}


def test_someone_has_every_scope() -> None:
    assert {*Scope} == scopes.SERVICE | scopes.ADMIN


@pytest.mark.parametrize("key", sorted(KEYED), ids=" ".join)
async def test_a_keyed_route_opens_to_who_has_its_scope_only(
    client: Client, key: tuple[str, str]
) -> None:
    requires: Requirements = KEYED[key]
    status, _ = await called(client, key, {})
    assert status == 401
    for (header, text), held in HELD.items():
        status, _ = await called(client, key, {header: text})
        assert status == (200 if requires.scope in held else 401), header


@pytest.mark.parametrize("key", sorted(ROUTES.keys() - KEYED.keys()), ids=" ".join)
async def test_an_open_route_opens_to_everyone(client: Client, key: tuple[str, str]) -> None:
    for headers in ({}, *({header: text} for header, text in HELD)):
        assert (await called(client, key, headers))[0] == 200
