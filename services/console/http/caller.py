"""Calls of the API: who acts, and how a change that is refused is answered."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from libs.common.http.application import Problem, only
from libs.common.scopes import PERSON
from services.console.store.actions import Actor


def caller(request: web.Request) -> Actor:
    """Return the person of the console, or the holder of the admin key by the name they claim."""
    said = request.headers.get("X-Operator", "").strip()
    if said.startswith(PERSON):
        id_, _, name = said.removeprefix(PERSON).partition(" ")
        roles = request.headers.get("X-Operator-Roles", "")
        return Actor("staff", id_, name or None, tuple(filter(None, roles.split(","))))
    return Actor("env", "ADMIN_API_KEY", said[:200] or None)


def for_admins(
    handler: Callable[[web.Request], Awaitable[web.Response]],
    statuses: Mapping[type[Exception], int],
) -> Any:
    """Admit whom the gateway admits as admin; answer these errors with status and docstring."""

    async def checked(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except tuple(statuses) as error:
            detail = " ".join(str(error.__doc__).split())
            raise Problem(statuses[type(error)], detail=detail) from None

    return only("admin", checked)
