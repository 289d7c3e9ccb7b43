"""Each page of the console, and each form, opens to its roles and to no one else."""

import re
import tomllib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.console.pages import routes
from services.console.pages.door import Door, PageHandler
from services.console.pages.live import LiveRoutes
from services.console.pages.oidc import OidcRoutes
from services.console.rules import Role
from services.console.store.sessions import Visitor
from services.console.texts import TEXTS

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
