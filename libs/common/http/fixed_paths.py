"""Requests for paths without variables, without aiohttp's router.

The router and what `web.Application` does around it cost a request as much as its rate limits. For
a fixed path both always come to the same: so it is found out once, at the start. Everything else
goes through the router: paths with variables, other spellings of a path, unknown methods, `Expect`.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import hdrs, web

from libs.common.http.aiohttp_private import resolve

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def shortcut(app: web.Application, fallback: Handle) -> Handle:
    """Return a handler of all requests.

    :param app: frozen: its routes and middlewares do not change any more
    :param fallback: aiohttp's own handler, for all other requests
    """
    found: dict[tuple[str, str], tuple[web.UrlMappingMatchInfo, Handle]] = {}
    for route in app.router.routes():
        if isinstance(route.resource, web.PlainResource):
            match = web.UrlMappingMatchInfo({}, route)
            match.add_app(app)
            match.freeze()
            handler: Handle = route.handler
            for middleware in reversed(app.middlewares):
                handler = partial(middleware, handler=handler)
            found.setdefault((route.method, route.resource.canonical), (match, handler))

    async def handle(request: web.Request) -> web.StreamResponse:
        known = found.get((request.method, request.rel_url.raw_path))
        if known is None or hdrs.EXPECT in request.headers:
            return await fallback(request)
        match, handler = known
        resolve(request, match)
        return await handler(request)

    return handle
