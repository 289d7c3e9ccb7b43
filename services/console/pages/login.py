"""Logging in and out, invitations, the step-up, and one's own account."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from yarl import URL

from libs.common.http import plain_form
from libs.domain.email_address import MalformedEmail, normalise
from services.console.messages import RefusedError
from services.console.pages.base import Act, Call, Page, Site
from services.console.pages.door import address_of, browser_of, enter, leave, next_page
from services.console.pages.lists import quiet
from services.console.pages.page import HEADERS, page, redirect, static
from services.console.people.factor import NEW_SECRET, SECRET, picture, uri_of
from services.console.people.logins import Try, UsedInvitationError
from services.console.people.passwords import TooManyError, WeakPasswordError
from services.console.rules import LANGUAGES, LONGEST
from services.console.store import people
from services.console.store.sessions import Visitor
from services.console.store.sql import run

MOST_LETTERS = 4 * LONGEST


async def _tried(request: web.Request) -> Try:
    form = await plain_form.read(request)
    password, code = (str(form.get(name, ""))[:MOST_LETTERS] for name in ("password", "code"))
    return Try(password, code, browser_of(request), address_of(request))


def _form(
    site: Site, request: web.Request, title: str, visitor: Visitor | None = None, *,
    oidc: str, text: str | None = None, **values: Any,
) -> web.Response:  # fmt: skip
    """Render the ways in which a person may prove who they are.

    :param oidc: the path that begins it at the identity provider
    """
    secure, issuer = site.door.keeps_secrets, site.door.ways.issuer
    fields: dict[str, Any] = {"asks_email": False, "asks_code": "", "new": False, "next": None}
    response = page(
        request, "login.html", title, visitor, secure=secure, oidc=issuer and oidc,
        text=text if secure else "insecure", **fields | values,
    )  # fmt: skip
    if issuer:  # where the form's answer leads, which Chromium also judges
        may = f"form-action 'self' {URL(issuer).origin()}"
        policy = HEADERS["Content-Security-Policy"].replace("form-action 'self'", may)
        response.headers["Content-Security-Policy"] = policy
    return response


async def to_home(_: web.Request) -> web.Response:
    return redirect("/console/")


class LoginRoutes:
    """The routes that are open before a login."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "/console/static/{name}", static),
            ("GET", "/console", to_home),
            ("GET", "/console/login", self.login_page),
            ("POST", "/console/login", self.login),
            ("POST", "/console/logout", self._site.door.only(self.logout, early=True)),
            ("GET", "/console/invitation/{token}", self.invitation_page),
            ("POST", "/console/invitation/{token}", self.accept),
        ):
            app.router.add_route(method, path, handler)

    async def login_page(self, request: web.Request) -> web.Response:
        return self._login(request, next_page(request.query.get("next")))

    def _login(
        self, request: web.Request, then: str, email: str = "", *, fault: str | None = None,
        status: int = 200,
    ) -> web.Response:  # fmt: skip
        return _form(
            self._site, request, "login", passwords=self._site.door.ways.passwords,
            oidc="/console/login/oidc", status=status, fault=fault, action="/console/login",
            next=then, asks_email=True, email=email, asks_code="factor_maybe", button="login",
        )  # fmt: skip

    async def login(self, request: web.Request) -> web.StreamResponse:
        form = await plain_form.read(request)
        given, then = str(form.get("email", "")), next_page(form.get("next"))
        if not self._site.door.keeps_secrets:
            return self._login(request, then, status=403)
        try:
            email = normalise(given)
        except MalformedEmail:
            email = ""  # costs as much as any other
        try:
            token = await self._site.logins.log_in(email, await _tried(request))
        except TooManyError:
            return self._login(request, then, given[:254], fault="busy", status=503)
        if token is None:
            return self._login(request, then, given[:254], fault="refused", status=403)
        return _inside(token, then)

    async def logout(self, _: web.Request, visitor: Visitor) -> web.StreamResponse:
        await self._site.logins.end_session(visitor, visitor.session)
        response = redirect("/console/login")
        leave(response)
        return response

    async def invitation_page(
        self, request: web.Request, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        """Mail scanners open links: only the form uses this one."""
        async with self._site.engine.connect() as tx:
            token = people.digest(request.match_info["token"])
            found = (await run(tx, "invited", token=token)).one_or_none()
        if found is None:
            return page(request, "message.html", "used", status=410, text="used_text")
        ways = self._site.door.ways
        by_oidc = "join_both" if ways.passwords else "join_oidc"
        return _form(
            self._site, request, "welcome", passwords=ways.passwords, oidc="/console/login/oidc",
            text=by_oidc if ways.issuer else "join_text", status=status, fault=fault,
            email=found.email, action=request.path, new=True, button="join",
        )  # fmt: skip

    async def accept(self, request: web.Request) -> web.StreamResponse:
        if not self._site.door.keeps_secrets:
            return await self.invitation_page(request)
        token, given = request.match_info["token"], await _tried(request)
        try:
            session = await self._site.logins.accept(token, given)
        except WeakPasswordError as error:
            return await self.invitation_page(request, fault=error.fault, status=error.status)
        except UsedInvitationError:
            return await self.invitation_page(request)
        return _inside(session, "/console/") if session else redirect("/console/login")


class ConfirmPage(Page):
    """The step-up: proves again who somebody is."""

    path, roles = "/console/confirm", ()

    def acts(self) -> Mapping[str, Act]:
        return {"": self._confirm}

    def guard(self, _: str | None) -> Mapping[str, bool]:
        return {"early": True}

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        by_password = visitor.by_password and self.site.door.ways.passwords
        shown = {"next": next_page(request.query.get("next"))} | said
        return _form(
            self.site, request, "confirm", visitor, passwords=by_password,
            oidc="" if by_password else "/console/confirm/oidc",
            text="confirm_text" if by_password else "confirm_oidc",
            action=self.path, email=visitor.email, button="confirm_button",
            asks_code=visitor.factor and "factor_code", **shown,
        )  # fmt: skip

    async def _confirm(self, call: Call) -> web.StreamResponse:
        then = next_page(call.form.get("next"))
        token = await self.site.logins.confirm(call.visitor, await _tried(call.request))
        if token is None:
            raise RefusedError("refused_again", 403, next=then)
        return _inside(token, then)


class MePage(Page):
    path, roles = "/console/me", ()

    def acts(self) -> Mapping[str, Act]:
        own = {"/password": self._password, "/language": self._language, "/end": self._end}
        return {**own, "/quiet": quiet}

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        async with self.site.engine.connect() as tx:
            shown = await run(tx, "sessions_of", id=visitor.staff_id, **self.site.door.ages)
        by_password = visitor.by_password and self.site.door.ways.passwords
        hours = await self.site.gateway.get(visitor, "/api/oncall/quiet")
        return page(
            request, "me.html", "me", visitor, sessions=shown, by_password=by_password,
            hours=hours.body if hours.ok else None, **said,
        )  # fmt: skip

    async def _language(self, call: Call) -> None:
        if (chosen := call.text("language")) in LANGUAGES:
            async with self.site.engine.begin() as tx:
                await run(tx, "set_language", id=call.visitor.staff_id, language=chosen)

    async def _end(self, call: Call) -> None:
        try:
            session = bytes.fromhex(call.text("session"))
        except ValueError:
            session = b""
        await self.site.logins.end_session(call.visitor, session)

    async def _password(self, call: Call) -> web.StreamResponse:
        wanted = str(call.form.get("new", ""))[:MOST_LETTERS]
        hashed = await self.site.logins.hashed(call.visitor, wanted)
        given = await _tried(call.request)
        if await self.site.logins.confirm(call.visitor, given) is None:
            raise RefusedError("refused_again", 403)
        token = await self.site.logins.set_own_password(call.visitor, hashed, given.browser)
        return _inside(token, self.path)


class FactorPage(Page):
    path, roles = "/console/factor", ()

    def acts(self) -> Mapping[str, Act]:
        return {"": self._set, "/remove": self._remove}

    def guard(self, below: str | None) -> Mapping[str, bool]:
        return {"fresh": True, "early": below != "/remove"}

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        """:param said: `codes`: recovery codes, which are shown only once"""
        secret = said.pop("secret", None) or NEW_SECRET()
        uri = uri_of(secret, visitor.email)
        return page(
            request, "factor.html", "factor", visitor, secret=secret,
            uri=uri, picture=picture(uri), needed=visitor.asks_factor, **{"codes": ()} | said,
        )  # fmt: skip

    async def _set(self, call: Call) -> Mapping[str, Any]:
        secret, code = call.text("secret"), (await _tried(call.request)).code
        if not SECRET.fullmatch(secret):
            raise web.HTTPBadRequest
        codes = await self.site.logins.set_factor(call.visitor, secret, code)
        if codes is None:
            raise RefusedError("refused_code", 422, secret=secret)
        return {"codes": codes}

    async def _remove(self, call: Call) -> web.StreamResponse:
        await self.site.logins.remove_factor(call.visitor)
        return redirect("/console/me")


def _inside(token: str, then: str) -> web.StreamResponse:
    response = redirect(then)
    enter(response, token)
    return response
