"""Calls with the admin key: who acts, and how a change that is refused is answered."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from libs.common.http.application import Problem, only
from services.console.store.actions import Actor


def admin_key(request: web.Request) -> Actor:
    """Return the holder of the admin key, with the name that they claim."""
    claimed = request.headers.get("X-Operator", "").strip()
    return Actor("env", "ADMIN_API_KEY", claimed[:200] or None)


def for_admins(
    handler: Callable[[web.Request], Awaitable[web.Response]],
    statuses: Mapping[type[Exception], int],
) -> Any:
    """Admit the admin key only; answer these errors with their status and docstring."""

    async def checked(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except tuple(statuses) as error:
            detail = " ".join(str(error.__doc__).split())
            raise Problem(statuses[type(error)], detail=detail) from None

    return only("admin", checked)
