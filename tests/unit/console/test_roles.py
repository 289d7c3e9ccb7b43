"""Each page of the console, and each form, opens to its roles and to no one else."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
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
OPEN = """
GET  /console
GET  /console/static/{name}
GET  /console/login
POST /console/login
GET  /console/invitation/{token}
POST /console/invitation/{token}
POST /console/login/oidc
GET  /console/oidc/callback
GET  /console/events
"""
"""Before anybody is logged in; then `events` says only that the session is over."""
PAGES = {
    ALL: """
        GET  /console/
        GET  /console/me
        POST /console/me/language
        POST /console/me/end
        POST /console/me/password
        GET  /console/factor
        POST /console/factor
        POST /console/factor/remove
        POST /console/logout
        GET  /console/confirm
        POST /console/confirm
        POST /console/confirm/oidc
    """,
    frozenset({Role.VIEWER, Role.OPS}): """
        GET  /console/alerts
        GET  /console/alerts/{id}
        GET  /console/bulk/{id}
        GET  /console/targets
        GET  /console/limits
        GET  /console/silences
        GET  /console/oncall
    """,
    frozenset({Role.OPS}): """
        POST /console/alerts
        POST /console/alerts/{id}/retry
        POST /console/alerts/{id}/discard
        POST /console/alerts/{id}/resolve
        POST /console/bulk/{id}/stop
        GET  /console/cases
        GET  /console/cases/{id}
        POST /console/cases/{id}
        POST /console/targets/replay
        POST /console/targets/{target}/reset
        POST /console/limits/{name}
        GET  /console/heartbeats
        POST /console/heartbeats
        POST /console/heartbeats/{id}/pause
        POST /console/heartbeats/{id}/rotate
        POST /console/heartbeats/{id}/delete
        POST /console/silences
        POST /console/silences/{id}/end
        POST /console/oncall
        POST /console/oncall/swap
        POST /console/oncall/{id}/remove
    """,
    frozenset({Role.SALES}): """
        GET  /console/leads
        POST /console/leads
        GET  /console/leads/{id}
        POST /console/leads/{id}
        POST /console/leads/{id}/notes
        POST /console/leads/{id}/calls
        POST /console/leads/{id}/facts
        POST /console/leads/{id}/owner
        GET  /console/leads/suspected
        POST /console/leads/suspected/{id}
        GET  /console/followups
        POST /console/followups/{id}/cancel
        POST /console/followups/{id}/stop
        GET  /console/undeliverable
        POST /console/undeliverable/{id}/retry
    """,
    frozenset({Role.PRIVACY}): """
        GET  /console/person
        POST /console/person
        POST /console/person/withdraw
        POST /console/person/object
        POST /console/person/restrict
        POST /console/person/lift
        POST /console/person/dismiss
        POST /console/person/correct
        POST /console/person/export
        POST /console/person/erase
    """,
    frozenset({Role.ADMIN}): """
        GET  /console/keys
        POST /console/keys
        POST /console/keys/{id}/rotate
        POST /console/keys/{id}/revoke
        GET  /console/staff
        POST /console/staff
        POST /console/staff/{id}/invitation
        POST /console/staff/{id}/roles
        POST /console/staff/{id}/factor
        POST /console/staff/{id}/disable
    """,
    frozenset({Role.PRIVACY, Role.ADMIN}): "GET /console/actions",
}
ASKS_AGAIN = re.compile(r"/console/(keys|staff|factor|person/(export|erase))(/|$)")
"""For the password, if it was given more than ten minutes ago."""

Route = tuple[str, str]


def listed(text: str) -> Iterator[Route]:
    for line in text.split("\n"):
        if line.strip():
            method, path = line.split()
            yield method, path


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
    table = [*listed(OPEN), *(route for text in PAGES.values() for route in listed(text))]
    pages = {route for route in found if route[1].startswith("/console")}
    assert pages == {*table}
    assert len(pages) == len(table)


async def test_a_page_opens_to_its_roles_only(client: TestClient[Any, Any]) -> None:
    everybody = [(role,) for role in Role] + [("owner",), ()]
    for admitted, text in PAGES.items():
        for method, path in listed(text):
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
    for admitted, text in PAGES.items():
        for method, path in listed(text):
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
