"""Who may enter: the session cookie, the origin of a form, roles, and the step-up."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from ipaddress import ip_network

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import CLIENT_ADDRESS, Problem
from services.console.pages.page import page, redirect
from services.console.people.logins import NoPasswordsError
from services.console.people.passwords import TooManyError
from services.console.rules import STEP_UP, Role, may
from services.console.settings import ConsoleSettings
from services.console.store import sessions
from services.console.store.sessions import Visitor
from services.console.store.versions import KeysRestoredError

REFRESH = "X-Refresh"
"""Sent by a page that refreshes itself (live.js): it does not count as activity."""
COOKIE = "__Host-ostoja"
"""Browsers take a cookie of this prefix only from its own host, with Secure and for all paths."""
_HERE = re.compile(r"/console/[a-z0-9/-]*")
_BROWSERS = ("Edg", "Firefox", "Chrome", "Safari")
_SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux")

PageHandler = Callable[[web.Request, Visitor], Awaitable[web.StreamResponse]]


class Door:
    def __init__(self, engine: AsyncEngine, settings: ConsoleSettings) -> None:
        self._engine = engine
        self._origin = settings.origin
        self.ways = settings.ways
        self.ages = {"idle": settings.session_idle_seconds, "most": settings.session_seconds}
        self.keeps_secrets = settings.keeps_secrets

    @web.middleware
    async def same_origin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a form of another site; browsers write these headers, pages cannot."""
        if request.path.startswith("/console") and request.method not in {"GET", "HEAD"}:
            site = request.headers.get("Sec-Fetch-Site")
            own = request.headers.get(hdrs.ORIGIN) == self._origin
            if site != "same-origin" and (site is not None or not own):
                return page(request, "message.html", "foreign", status=403, text="foreign_text")
        return await handler(request)

    def add(
        self, app: web.Application, method: str, path: str, handler: PageHandler, *roles: Role,
        fresh: bool = False, early: bool = False,
    ) -> None:  # fmt: skip
        app.router.add_route(method, path, self.only(handler, *roles, fresh=fresh, early=early))

    def only(
        self, handler: PageHandler, *roles: Role, fresh: bool = False, early: bool = False
    ) -> Handler:
        """Let in people with one of these roles; with none given, everybody who is logged in.

        :param fresh: ask them to prove again who they are, if the last proof is old
        :param early: before they have the second factor that their roles need
        """

        async def entered(request: web.Request) -> web.StreamResponse:
            visitor = await self.visitor(request, active=REFRESH not in request.headers)
            here = request.path if request.method == "GET" else _area(request.path)
            if visitor is None:
                return redirect(f"/console/login?next={here}")
            if visitor.asks_factor and not (early or visitor.factor):
                return redirect("/console/factor")
            if roles and not may(visitor.roles, *roles):
                return page(
                    request, "message.html", "forbidden", visitor,
                    status=403, text="forbidden_text",
                )  # fmt: skip
            if fresh and datetime.now(UTC) - visitor.stepped_up_at > STEP_UP:
                return redirect(f"/console/confirm?next={here}")
            return await handler(request, visitor)

        return entered

    async def visitor(self, request: web.Request, *, active: bool = True) -> Visitor | None:
        """:param active: whether the session's idle time begins again"""
        token = request.cookies.get(COOKIE)
        if not token or len(token) > 100:
            return None
        async with self._engine.begin() as tx:
            return await sessions.visitor(tx, token, self.ages, active=active)


@web.middleware
async def errors_as_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except TooManyError:
        status = 503
    except NoPasswordsError:
        return page(request, "message.html", "oidc_failed", status=403, text="oidc_only")
    except KeysRestoredError:
        if not request.path.startswith("/console"):
            raise
        return page(request, "message.html", "restored", status=503, text="restored_text")
    except Problem as problem:
        if not request.path.startswith("/console"):
            raise
        status = problem.status
    except web.HTTPException as error:
        if error.status < 400 or not request.path.startswith("/console"):
            raise
        status = error.status
    if status < 500:
        return page(request, "message.html", "not_found", status=status, text=None)
    return page(request, "message.html", "again_later", status=status, text="again_later_text")


def enter(response: web.StreamResponse, token: str) -> None:
    response.set_cookie(COOKIE, token, secure=True, httponly=True, samesite="Lax", path="/")


def leave(response: web.StreamResponse) -> None:
    # Not "cookies": that would also end sessions of the company's other services under its domain.
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    response.del_cookie(COOKIE, secure=True, httponly=True, samesite="Lax", path="/")


def next_page(given: object) -> str:
    """Return where to go after a login: a page of ours, whatever the link says."""
    text = str(given or "")
    return text if _HERE.fullmatch(text) and text != "/console/login" else "/console/"


def browser_of(request: web.Request) -> str:
    said = request.headers.get(hdrs.USER_AGENT, "")
    found = [next((name for name in names if name in said), "") for names in (_BROWSERS, _SYSTEMS)]
    return ", ".join(filter(None, found)).replace("Edg,", "Edge,") or "?"


def address_of(request: web.Request) -> str:
    """Return the client's address, as the gateway reports it; for IPv6 the /64 of one site."""
    address = request.headers.get(CLIENT_ADDRESS, "unknown")
    return str(ip_network((address, 64), strict=False)) if ":" in address else address


def _area(path: str) -> str:
    """Return the page that has this form."""
    return "/".join(path.split("/")[:3])
