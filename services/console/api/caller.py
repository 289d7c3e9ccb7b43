"""Calls of the API, and how a change that is refused is answered."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from libs.common.http.application import Problem, only


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
