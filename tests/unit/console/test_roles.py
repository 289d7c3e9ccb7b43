"""Each page of the console, and each form, opens to its roles and to no one else."""

import base64
import re
import tomllib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from libs.domain.scopes import operator_action
from libs.domain.signed_links import Tokens
from services.console.gateway import Gateway, part
from services.console.pages import routes
from services.console.pages.door import Door, PageHandler
from services.console.pages.live import LiveRoutes
from services.console.pages.oidc import OidcRoutes
from services.console.pages.start import PARTS
from services.console.rules import ID, LONGEST_LIFE, Role, expiry_fault, new_key_id, new_secret
from services.console.store.sessions import Visitor
from services.console.texts import TEXTS
from services.gateway.door.scopes import STAFF
from tests.support.routes import route_table

ALL = frozenset(Role)
_TABLE: dict[str, list[tuple[str, ...]]] = {
    roles: [tuple(each.split()) for each in pages]
    for roles, pages in tomllib.loads(
        Path(__file__).with_name("roles.toml").read_text(encoding="utf-8")
    ).items()
}
OPEN = _TABLE.pop("open")
PAGES = {
    ALL if roles == "all" else frozenset(map(Role, roles.split())): pages
    for roles, pages in _TABLE.items()
}
ASKS_AGAIN = re.compile(r"/console/(keys|staff|factor|person/(export|erase))(/|$)")
"""For the password, if it was given more than ten minutes ago."""


class OpenedDoor(Door):
    """Knows people by a header, and has nothing behind it."""

    def only(self, _: PageHandler, *roles: Role, fresh: bool = False, early: bool = False) -> Any:
        async def inside(_: web.Request, __: Visitor) -> web.Response:
            return web.Response()

        return super().only(inside, *roles, fresh=fresh, early=early)

    async def visitor(
        self,
        request: web.Request,
        *,
        active: bool = True,  # noqa: ARG002 - as the door has it
    ) -> Visitor | None:
        if (given := request.headers.get("X-Roles")) is None:
            return None
        long_ago = timedelta(minutes=11 if "X-Long-Ago" in request.headers else 0)
        roles, at = tuple(filter(None, given.split(","))), datetime.now(UTC) - long_ago
        return Visitor(uuid4(), "ewa@example.com", "Ewa Lis", roles, "en", b"", at, factor=True)


@pytest.fixture
def app() -> web.Application:
    made = web.Application()
    door = OpenedDoor(MagicMock(), MagicMock(origin="https://console.example.com"))
    site: Any = MagicMock(door=door)
    routes.add_to(made, site)
    LiveRoutes(door, MagicMock()).add_to(made)
    OidcRoutes(door, MagicMock(), MagicMock(), MagicMock()).add_to(made)
    return made


@pytest.fixture
async def client(app: web.Application) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(app)) as opened:
        yield opened


def test_the_table_has_every_route(app: web.Application) -> None:
    found = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    table = [*OPEN, *(route for pages in PAGES.values() for route in pages)]
    pages = {route for route in found if route[1].startswith("/console")}
    assert sorted(table) == sorted(pages)


async def test_a_page_opens_to_its_roles_only(client: TestClient[Any, Any]) -> None:
    everybody = [(role,) for role in Role] + [("owner",), ()]
    for admitted, pages in PAGES.items():
        for method, path in pages:
            for roles in everybody:
                headers = {"X-Roles": ",".join(roles)}
                asked = client.request(method, filled(path), headers=headers, allow_redirects=False)
                async with asked as answer:
                    opens = admitted is ALL or admitted & {*roles}
                    assert answer.status == (200 if opens else 403), (method, path, roles)
                    if not opens:
                        assert TEXTS["en"]["forbidden"] in await answer.text()


async def test_nobody_enters_without_a_session_and_some_pages_ask_for_the_password_again(
    client: TestClient[Any, Any],
) -> None:
    for admitted, pages in PAGES.items():
        for method, path in pages:
            old = {"X-Roles": ",".join(admitted), "X-Long-Ago": ""}
            for headers, to in (({}, "login"), (old, "confirm")):
                async with client.request(
                    method, filled(path), headers=headers, allow_redirects=False
                ) as answer:
                    if to == "confirm" and not ASKS_AGAIN.search(path):
                        assert answer.status == 200, (method, path)
                        continue
                    assert answer.status == 303, (method, path, to)
                    assert answer.headers["Location"].startswith(f"/console/{to}?next=/console")


def filled(path: str) -> str:
    return re.sub(r"\{\w+\}", "x", path)


def test_each_part_is_asked_for_those_whom_the_gateway_lets_see_it() -> None:
    routes = route_table()
    for path in {each.path for each in PARTS}:
        scope = routes["get", path].scope
        asked = {role for each in PARTS if each.path == path for role in each.roles}
        assert asked == {role for role in Role if scope in STAFF[role]}, path


def test_a_ledger_that_does_not_add_up_and_a_mail_to_on_call_that_does_not_leave_are_told() -> None:
    (ledger,) = [each.rows for each in PARTS if each.name == "ledger"]
    failed = "/console/alerts?state=failed&event_type=escalation"
    for ok, seconds, told in (
        (True, 1799.0, []),
        (False, 0.0, [("ledger", 1, None)]),
        (None, 3700.0, [("escalations", 61, failed)]),
    ):
        found = ledger({"ok": ok, "escalation_unsent_seconds": seconds})
        assert [row for row in found if row[1]] == told


# The console's calls of the gateway: each has a token for itself.

KEYS = "o1:" + base64.b64encode(b"o" * 32).decode()


async def test_a_token_is_signed_for_the_method_and_path_that_the_gateway_sees() -> None:
    seen: list[tuple[str, str, str]] = []

    async def note(request: web.Request) -> web.Response:
        path = request.rel_url.raw_path
        seen.append((request.method, path, request.headers["X-Operator-Token"]))
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", note)
    fields: dict[str, Any] = dict.fromkeys(Visitor.__dataclass_fields__)
    visitor = Visitor(**fields | {"staff_id": uuid.uuid4(), "name": "Zoë Żak", "roles": ("sales",)})
    async with TestServer(app) as server, Gateway.open(str(server.make_url("/")), KEYS) as gateway:
        person = part("zażółć+x@example.pl")
        await gateway.get(visitor, f"/api/consent/audit/{person}", cursor="a b", limit=7)
        await gateway.post(visitor, "/api/dlq/retry", {"ids": []})
        await gateway.ask("DELETE", visitor, f"/api/silences/{part('1/2')}")
    assert [method for method, *_ in seen] == ["GET", "POST", "DELETE"]
    for method, path, token in seen:
        claims = Tokens(KEYS).verify(token, operator_action(method, path), datetime.now(UTC))
        assert claims.purpose == "sales"


NOW = datetime(2026, 11, 27, tzinfo=UTC)


def test_a_secret_names_its_key_and_holds_256_random_bits() -> None:
    key_id = new_key_id()
    assert ID.fullmatch(key_id)
    first, second = new_secret(key_id), new_secret(key_id)
    prefix, named, random = first.text.split("_", 2)
    assert (prefix, named, len(random)) == ("osk", key_id, 43)
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (NOW, "past"),
        (NOW + LONGEST_LIFE, None),
        (NOW + LONGEST_LIFE + timedelta(seconds=1), "400 days"),
    ],
)
def test_a_key_ends_within_400_days(end: datetime, said: str | None) -> None:
    fault = expiry_fault(end, NOW)
    assert fault is None if said is None else fault is not None and said in fault
