"""The console's pages, for people with a browser: passed through to it as they are.

They never get CORS headers (cors.py): no other site's page may read them.
"""

from functools import partial

from aiohttp import hdrs, web
from multidict import istr

from libs.common.http.application import CALLER, until_stop
from libs.common.process import logs
from services.gateway.door.access import CONTEXT, Access, Requirements
from services.gateway.door.body_budget import BodyBudget
from services.gateway.door.clients import Role
from services.gateway.proxy.forward import forward, outgoing_headers, readable
from services.gateway.proxy.upstream import Upstream

PAGES = Requirements(policy="console")
LOGIN = Requirements(policy="login")
EVENTS = "/console/events"
# Without `..` and `%`: no path under /console may mean another one to the console.
PATH = r"/console/{page:(?!.*\.\.)[A-Za-z0-9._/~-]*}"
STREAMS = 200
"""Per process: streams stay open, and must not block calls for pages and keys."""
HEADERS = (
    hdrs.COOKIE,
    hdrs.ORIGIN,
    hdrs.REFERER,
    hdrs.IF_NONE_MATCH,
    *map(istr, ("Sec-Fetch-Site", "Sec-Fetch-Mode", "X-Refresh")),
)


def add_routes(
    app: web.Application,
    access: Access,
    console: Upstream,
    streams: Upstream,
    body_budget: BodyBudget,
) -> None:
    """:param streams: the console once more, with a pool for answers that do not end"""

    async def passed(request: web.Request, *, to: Upstream) -> web.StreamResponse:
        body = await body_budget.read(request)
        headers = outgoing_headers(request, request[CONTEXT].client, logs.request_id.get() or "")
        headers[CALLER] = Role.PUBLIC  # an API key logs nobody in
        for name in HEADERS:
            if (value := request.headers.get(name)) is not None:
                headers[name] = readable(value)
        return await forward(request, to, headers, body or None)

    page, events = partial(passed, to=console), partial(passed, to=streams)
    access.guard(app.router.add_post("/console/login", page), LOGIN)
    access.guard(app.router.add_get(EVENTS, until_stop(app, events), allow_head=False), PAGES)
    for path in ("/console", PATH):
        for method in (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_POST):
            access.guard(app.router.add_route(method, path, page), PAGES)
