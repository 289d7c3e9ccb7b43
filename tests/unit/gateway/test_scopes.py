"""Each route of the gateway's table opens to who has its scope, and to no one else."""

import base64
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from libs.common.http.application import PERSONAL, create_app
from libs.domain.scopes import NOT_FOR_KEYS, Scope, operator_action
from libs.domain.signed_links import Tokens
from services.gateway.door import scopes
from services.gateway.door.access import CONTEXT, Access
from services.gateway.door.budgets import Budgets
from services.gateway.door.clients import Client, IpSource, Keys, Role, TrustedProxies
from services.gateway.door.keys import ApiKeys
from services.gateway.door.limits import Decision, Window
from services.gateway.proxy.forward import outgoing_headers
from tests.support.console import api_key
from tests.support.routes import route_table

ROUTES = {key: requires for key, requires in route_table().items() if key[1] != "/health"}
KEYED = {key: requires for key, requires in ROUTES.items() if requires.scope is not None}
ENVIRONMENT = {
    ("X-API-KEY", "service"): scopes.SERVICE,
    ("X-ADMIN-API-KEY", "admin"): scopes.ADMIN,
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
IDS = {scope: f"{'A' * 9}{LETTERS[n]}" for n, scope in enumerate(Scope)}
OWN = {scope: f"osk_{id_}_secret" for scope, id_ in IDS.items()}
"""A key for each scope, with this scope only."""

OPERATOR_KEYS = "o1:" + base64.b64encode(b"o" * 32).decode()
FOR_LINKS = "o1:" + base64.b64encode(b"l" * 32).decode()


STATS = ("get", "/api/dlq/stats")


def path_of(route: str) -> str:
    return re.sub(r"\{\w+\}", "x", route)


def token(
    *roles: str, of: tuple[str, str] = STATS, ago: float = 0, action: str = "",
    keys: str = OPERATOR_KEYS,
) -> str:  # fmt: skip
    """Return a token as the console signs it, for a call of this route."""
    action = action or operator_action(of[0].upper(), path_of(of[1]))
    at = datetime.now(UTC) - timedelta(seconds=ago)
    return Tokens(keys).sign("7 Zażółć Gęślą", ",".join(roles), action, at)


HttpClient = TestClient[web.Request, web.Application]


class Admitting:
    """Stands for the limiter, the waits and the overrides: it admits everything."""

    def __init__(self) -> None:
        self.policies = dict.fromkeys(
            ("chat", "api", "service", "slack", "health", "console", "login"), ()
        ) | dict.fromkeys(
            ("chat_budget", "write_budget", "withdrawal_budget"), (Window("b", 1, 1),)
        )
        self.counted: list[tuple[str, str]] = []

    async def decide(self, policy: str, key: str, *_: object) -> Decision:
        self.counted.append((policy, key))
        return Decision(policy, admitted=True, uses=())


@pytest.fixture
def admitting() -> Any:
    return Admitting()


@pytest.fixture
def access(admitting: Any) -> Access:
    api_keys = ApiKeys()
    api_keys.adopt(api_key(IDS[scope], text, scope) for scope, text in OWN.items())
    return Access(
        keys=Keys(["service"], ["admin"]),
        api_keys=api_keys,
        proxies=TrustedProxies(()),
        tokens=None,
        pings=None,
        operators=Tokens(OPERATOR_KEYS),
        limiter=admitting,
        budgets=Budgets(admitting, shadow=False),
        waits=admitting,
        overrides=admitting,
        shadow=False,
    )


@pytest.fixture
async def client(access: Access) -> AsyncIterator[HttpClient]:
    async def opened(request: web.Request) -> web.Response:
        sees = "yes" if request[CONTEXT].client.sees_persons else "no"
        return web.Response(headers={"Sees": sees})

    app = create_app(internal_key=None)
    app.middlewares.append(access.middleware)
    for (method, path), requires in ROUTES.items():
        access.guard(app.router.add_route(method, path, opened), requires)
    async with TestClient(TestServer(app)) as opened_client:
        yield opened_client


async def called(
    client: HttpClient, key: tuple[str, str], headers: dict[str, str]
) -> tuple[int, str]:
    """Return the status, and of a refusal its detail."""
    method, path = key
    async with client.request(method, path_of(path), headers=headers) as answer:
        refused = answer.status != 200 and method != "head"
        return answer.status, (await answer.json())["detail"] if refused else ""


def test_every_scope_opens_a_route() -> None:
    # That one changes what routes of others show.
    opening = {*Scope} - {Scope.PERSONAL_DATA}
    assert {requires.scope for requires in KEYED.values()} == opening


def test_the_keys_of_the_environment_have_every_scope_but_that_of_imports() -> None:
    assert {*Scope} - {Scope.LEADS_IMPORT} == scopes.SERVICE | scopes.ADMIN


def test_only_the_gateway_says_who_sees_personal_data() -> None:
    forged = make_mocked_request("GET", "/api/events", {PERSONAL: "yes"})
    stranger = Client("192.0.2.1", IpSource.PEER, Role.SERVICE)
    assert PERSONAL not in outgoing_headers(forged, stranger, "1")
    admitted = stranger._replace(sees_persons=True)
    assert outgoing_headers(forged, admitted, "1")[PERSONAL] == "yes"


async def test_a_call_for_events_says_whether_the_key_has_that_scope(
    access: Access, client: HttpClient
) -> None:
    own = [f"osk_AAAAAAAAA{number}_secret" for number in (2, 3)]
    reading = {Scope.SUBSCRIPTIONS_READ}
    held = [reading | {Scope.PERSONAL_DATA}, reading]
    keys = zip(own, held, strict=True)
    access.api_keys.adopt(api_key(text[4:14], text, *scopes) for text, scopes in keys)
    for headers, sees in (
        ({"X-ADMIN-API-KEY": "admin"}, "yes"),
        ({"X-API-KEY": own[0]}, "yes"),
        ({"X-API-KEY": own[1]}, "no"),
    ):
        async with client.get("/api/events", headers=headers) as answer:
            assert (answer.status, answer.headers["Sees"]) == (200, sees)


async def test_a_keyed_route_opens_to_who_has_its_scope_only(client: HttpClient) -> None:
    for key, requires in KEYED.items():
        needed = requires.scope
        assert (await called(client, key, {}))[0] == 401, key
        for (header, text), held in ENVIRONMENT.items():
            status, _ = await called(client, key, {header: text})
            assert status == (200 if needed in held else 401), (key, header)
        for scope, text in OWN.items():
            status, detail = await called(client, key, {"X-API-KEY": text})
            opens = scope == needed and scope not in NOT_FOR_KEYS
            assert status == (200 if opens else 403), (key, scope)
            assert detail in {"", f"this needs the scope {needed}"}
        for role, held in scopes.STAFF.items():
            status, detail = await called(client, key, {"X-Operator-Token": token(role, of=key)})
            assert status == (200 if needed in held else 403), (key, role)
            assert detail in {"", f"this needs the scope {needed}"}


async def test_an_open_route_opens_to_everyone(client: HttpClient) -> None:
    environment = [{header: text} for header, text in ENVIRONMENT]
    for key in ROUTES.keys() - KEYED.keys():
        for headers in ({}, *environment, *({"X-API-KEY": text} for text in OWN.values())):
            assert (await called(client, key, headers))[0] == 200, (key, headers)


async def test_roles_add_up_and_an_unknown_one_has_no_scope(client: HttpClient) -> None:
    for key in (STATS, ("get", "/api/consent/audit/{email}")):
        both = {"X-Operator-Token": token("viewer", "privacy", of=key)}
        assert (await called(client, key, both))[0] == 200, key
    assert (await called(client, STATS, {"X-Operator-Token": token("owner")}))[0] == 403


async def test_staff_count_by_themselves_also_where_they_are_refused_or_all_are_let_in(
    client: HttpClient, admitting: Admitting
) -> None:
    open_to_all = ("get", "/api/unsubscribe/status/{email}")
    for key, status in ((STATS, 403), (open_to_all, 200)):
        sales = {"X-Operator-Token": token("sales", of=key)}
        assert (await called(client, key, sales))[0] == status
    assert {*admitting.counted} == {("service", "staff:7:all")}
    admitting.counted.clear()
    old = {"X-Operator-Token": token("sales", of=open_to_all, ago=400)}
    await called(client, open_to_all, old)
    assert [policy for policy, _ in admitting.counted] == ["api"]


async def test_a_token_opens_the_call_that_it_is_for(client: HttpClient) -> None:
    own = {"X-Operator-Token": token("ops", action="operator GET /api/dlq/stats")}
    assert (await called(client, STATS, own))[0] == 200


NO_TOKENS: dict[str, Callable[[], str]] = {
    "old": lambda: token("ops", ago=400),
    "of the future": lambda: token("ops", ago=-400),
    "a link": lambda: token("ops", action="unsubscribe"),
    "any call": lambda: token("ops", action="operator"),
    "another method": lambda: token("ops", action="operator POST /api/dlq/stats"),
    "another path": lambda: token("ops", action="operator GET /api/dlq/failed"),
    "another key": lambda: token("ops", keys=FOR_LINKS),
    "cut": lambda: token("ops")[:-1],
    "none": lambda: "x",
    "empty": str,
}


@pytest.mark.parametrize("made", NO_TOKENS.values(), ids=NO_TOKENS)
async def test_a_token_that_the_console_did_not_just_sign_opens_nothing(
    client: HttpClient, made: Callable[[], str]
) -> None:
    # Made now: the run of all tests takes longer than a token is valid.
    status, detail = await called(client, STATS, {"X-Operator-Token": made()})
    assert (status, detail) == (401, "this requires a valid key in X-Operator-Token")
