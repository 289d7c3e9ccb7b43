"""Login and step-up at the identity provider: the way there and back.

What the browser brings back counts only with the cookie that it left with: a link that somebody
else began (a login CSRF) logs nobody in. The return is the one GET that changes something, because
the provider redirects the browser to it.
"""

from dataclasses import astuple
from datetime import UTC, datetime, timedelta

from aiohttp import web

from libs.common.http import plain_form
from libs.common.process.logs import log
from libs.domain.signed_links import InvalidToken, Tokens
from services.console.pages.door import Door, browser_of, enter, next_page
from services.console.pages.page import page, redirect
from services.console.people.logins import Logins
from services.console.people.oidc import Begun, OidcError, Provider, StrayError
from services.console.store.sessions import Visitor

COOKIE = "__Host-ostoja-oidc"
LIFETIME = timedelta(minutes=10)
CALLBACK = "/console/oidc/callback"
SIGNED_FOR = "oidc"


class OidcRoutes:
    def __init__(self, door: Door, logins: Logins, provider: Provider, tokens: Tokens) -> None:
        self._door = door
        self._logins = logins
        self._provider = provider
        self._tokens = tokens

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/console/login/oidc", self.login)
        self._door.add(app, "POST", "/console/confirm/oidc", self.confirm)
        app.router.add_route("GET", CALLBACK, self.callback)

    async def login(self, request: web.Request) -> web.StreamResponse:
        if not self._door.keeps_secrets:
            return redirect("/console/login")
        return await self._leave(request, "login")

    async def confirm(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        return await self._leave(request, "confirm", visitor)

    async def _leave(
        self, request: web.Request, purpose: str, visitor: Visitor | None = None
    ) -> web.StreamResponse:
        purpose += " " + next_page((await plain_form.read(request)).get("next"))
        try:
            url, begun = await self._provider.begin(again=visitor is not None)
        except OidcError as error:
            return _failed(request, error, visitor)
        response = redirect(url)
        response.set_cookie(
            COOKIE,
            self._tokens.sign(" ".join(astuple(begun)), purpose, SIGNED_FOR, datetime.now(UTC)),
            max_age=int(LIFETIME.total_seconds()), secure=True, httponly=True, samesite="Lax",
        )  # fmt: skip
        return response

    async def callback(self, request: web.Request) -> web.StreamResponse:
        visitor = await self._door.visitor(request)
        given, now = request.cookies.get(COOKIE, ""), datetime.now(UTC)
        try:
            kept = self._tokens.verify(given, SIGNED_FOR, now, LIFETIME)
            identity = await self._provider.finish(Begun(*kept.subject.split()), request.query)
            purpose, _, then = kept.purpose.partition(" ")
            response = redirect(next_page(then))
            if purpose == "login":
                enter(response, await self._logins.log_in_as(identity, browser_of(request)))
            elif visitor is not None:  # else the session has ended, and the page asks for a login
                enter(response, await self._logins.confirm_as(visitor, identity))
        except (InvalidToken, StrayError):  # the login that this browser began may still come back
            return _failed(request, StrayError("cookie or state"), visitor)
        except OidcError as error:
            response = _failed(request, error, visitor)
        response.del_cookie(COOKIE, secure=True, httponly=True, samesite="Lax")
        return response


def _failed(request: web.Request, error: OidcError, visitor: Visitor | None) -> web.Response:
    """Say what the person can do about it; the log has the reason, without an address."""
    log.warning("oidc.refused", fault=error.fault, reason=str(error))
    return page(
        request, "message.html", "oidc_failed", visitor, status=error.status, text=error.fault
    )
