"""Logging in and out, invitations, the step-up, and one's own account."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine
from yarl import URL

from libs.common.http import plain_form
from libs.domain.email_address import MalformedEmail, normalise
from services.console.pages.door import Door, address_of, browser_of, enter, leave, next_page
from services.console.pages.page import HEADERS, page, redirect, static
from services.console.people.factor import NEW_SECRET, SECRET, picture, uri_of
from services.console.people.logins import Logins, Try, UsedInvitationError
from services.console.people.passwords import TooManyError, WeakPasswordError
from services.console.rules import LANGUAGES, LONGEST
from services.console.store import people, sessions
from services.console.store.sessions import Visitor
from services.console.texts import moment

MOST_LETTERS = 4 * LONGEST


async def _tried(request: web.Request) -> Try:
    form = await plain_form.read(request)
    password, code = (str(form.get(name, ""))[:MOST_LETTERS] for name in ("password", "code"))
    return Try(password, code, browser_of(request), address_of(request))


class LoginRoutes:
    def __init__(self, engine: AsyncEngine, door: Door, logins: Logins) -> None:
        self._engine = engine
        self._door = door
        self._logins = logins

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "/console/static/{name}", static),
            ("GET", "/console", self.to_home),
            ("GET", "/console/login", self.login_page),
            ("POST", "/console/login", self.login),
            ("POST", "/console/logout", self._door.only(self.logout, early=True)),
            ("GET", "/console/invitation/{token}", self.invitation_page),
            ("POST", "/console/invitation/{token}", self.accept),
            ("GET", "/console/confirm", self._door.only(self.confirm_page, early=True)),
            ("POST", "/console/confirm", self._door.only(self.confirm, early=True)),
            ("GET", "/console/factor", self._door.only(self.factor, fresh=True, early=True)),
            ("POST", "/console/factor", self._door.only(self.set_factor, fresh=True, early=True)),
            ("POST", "/console/factor/remove", self._door.only(self.remove_factor, fresh=True)),
            ("GET", "/console/me", self._door.only(self.me)),
            ("POST", "/console/me/password", self._door.only(self.password)),
            ("POST", "/console/me/language", self._door.only(self.language)),
            ("POST", "/console/me/end", self._door.only(self.end)),
        ):
            app.router.add_route(method, path, handler)

    async def to_home(self, _: web.Request) -> web.Response:
        return redirect("/console/")

    async def login_page(self, request: web.Request) -> web.Response:
        return self._login(request, next_page(request.query.get("next")))

    def _login(
        self, request: web.Request, then: str, email: str = "", *, fault: str | None = None,
        status: int = 200,
    ) -> web.Response:  # fmt: skip
        ways = self._door.ways
        return self._form(
            request, "login", passwords=ways.passwords, oidc="/console/login/oidc", status=status,
            fault=fault, action="/console/login", next=then, asks_email=True, email=email,
            new=False, asks_code="factor_maybe", button="login",
        )  # fmt: skip

    def _form(
        self, request: web.Request, title: str, visitor: Visitor | None = None, *,
        oidc: str, text: str | None = None, **values: Any,
    ) -> web.Response:  # fmt: skip
        """Render the ways in which somebody may prove who they are.

        :param oidc: the path that begins it at the identity provider
        """
        secure, issuer = self._door.keeps_secrets, self._door.ways.issuer
        response = page(
            request, "login.html", title, visitor, secure=secure, oidc=issuer and oidc,
            text=text if secure else "insecure", **values,
        )  # fmt: skip
        if issuer:  # where the form's answer leads, which Chromium judges, too
            may = f"form-action 'self' {URL(issuer).origin()}"
            policy = HEADERS["Content-Security-Policy"].replace("form-action 'self'", may)
            response.headers["Content-Security-Policy"] = policy
        return response

    async def login(self, request: web.Request) -> web.StreamResponse:
        form = await plain_form.read(request)
        given, then = str(form.get("email", "")), next_page(form.get("next"))
        if not self._door.keeps_secrets:
            return self._login(request, then, status=403)
        try:
            email = normalise(given)
        except MalformedEmail:
            email = ""  # costs as much as any other
        try:
            token = await self._logins.log_in(email, await _tried(request))
        except TooManyError:
            return self._login(request, then, given[:254], fault="busy", status=503)
        if token is None:
            return self._login(request, then, given[:254], fault="refused", status=403)
        return _inside(token, then)

    async def logout(self, _: web.Request, visitor: Visitor) -> web.StreamResponse:
        await self._logins.end_session(visitor, visitor.session)
        response = redirect("/console/login")
        leave(response)
        return response

    async def invitation_page(self, request: web.Request) -> web.Response:
        """Mail scanners open links: only the form uses this one."""
        return await self._invitation(request)

    async def _invitation(
        self, request: web.Request, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        async with self._engine.connect() as tx:
            found = await people.invited(tx, request.match_info["token"])
        if found is None:
            return page(request, "message.html", "used", status=410, text="used_text")
        ways = self._door.ways
        by_oidc = "join_both" if ways.passwords else "join_oidc"
        return self._form(
            request, "welcome", passwords=ways.passwords, oidc="/console/login/oidc",
            text=by_oidc if ways.issuer else "join_text", status=status, fault=fault,
            email=found.email, action=request.path, next=None, asks_email=False, new=True,
            asks_code="", button="join",
        )  # fmt: skip

    async def accept(self, request: web.Request) -> web.StreamResponse:
        if not self._door.keeps_secrets:
            return await self._invitation(request)
        try:
            session = await self._logins.accept(request.match_info["token"], await _tried(request))
        except WeakPasswordError as error:
            return await self._invitation(request, fault=str(error), status=422)
        except UsedInvitationError:
            return await self._invitation(request)
        return _inside(session, "/console/") if session else redirect("/console/login")

    async def confirm_page(self, request: web.Request, visitor: Visitor) -> web.Response:
        return await self._confirm(request, visitor, next_page(request.query.get("next")))

    async def _confirm(
        self, request: web.Request, visitor: Visitor, then: str, *, fault: str | None = None,
        status: int = 200,
    ) -> web.Response:  # fmt: skip
        by_password = visitor.by_password and self._door.ways.passwords
        return self._form(
            request, "confirm", visitor, passwords=by_password,
            oidc="" if by_password else "/console/confirm/oidc",
            text="confirm_text" if by_password else "confirm_oidc", status=status, fault=fault,
            action="/console/confirm", next=then, asks_email=False, email=visitor.email, new=False,
            asks_code=visitor.factor and "factor_code", button="confirm_button",
        )  # fmt: skip

    async def confirm(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        then = next_page((await plain_form.read(request)).get("next"))
        token = await self._logins.confirm(visitor, await _tried(request))
        if token is None:
            return await self._confirm(request, visitor, then, fault="refused_again", status=403)
        return _inside(token, then)

    async def me(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None,
        status: int = 200,
    ) -> web.Response:  # fmt: skip
        async with self._engine.connect() as tx:
            found = await sessions.of(tx, visitor.staff_id, self._door.ages)
        shown = [
            {
                "id": bytes(each.token_sha256).hex(),
                "mine": bytes(each.token_sha256) == visitor.session,
                "browser": each.browser,
                "at": moment(each.created_at),
                "seen": moment(each.seen_at),
            }
            for each in found
        ]
        return page(
            request, "me.html", "me", visitor, status=status, fault=fault, sessions=shown,
            by_password=visitor.by_password and self._door.ways.passwords,
        )  # fmt: skip

    async def language(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        chosen = str((await plain_form.read(request)).get("language", ""))
        if chosen in LANGUAGES:
            async with self._engine.begin() as tx:
                await people.change(tx, visitor.staff_id, language=chosen)
        return redirect("/console/me")

    async def end(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        try:
            session = bytes.fromhex(str((await plain_form.read(request)).get("session", "")))
        except ValueError:
            session = b""
        await self._logins.end_session(visitor, session)
        return redirect("/console/me")

    async def password(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        wanted = str((await plain_form.read(request)).get("new", ""))[:MOST_LETTERS]
        try:
            hashed = await self._logins.hashed(visitor, wanted)
        except WeakPasswordError as error:
            return await self.me(request, visitor, fault=str(error), status=422)
        given = await _tried(request)
        if await self._logins.confirm(visitor, given) is None:
            return await self.me(request, visitor, fault="refused_again", status=403)
        token = await self._logins.set_own_password(visitor, hashed, given.browser)
        return _inside(token, "/console/me")

    async def factor(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None,
        status: int = 200, secret: str = "", codes: Sequence[str] = (),
    ) -> web.Response:  # fmt: skip
        """:param codes: recovery codes, which are shown this once"""
        secret = secret or NEW_SECRET()
        uri = uri_of(secret, visitor.email)
        return page(
            request, "factor.html", "factor", visitor, status=status, fault=fault, codes=codes,
            secret=secret, uri=uri, picture=picture(uri),
            needed=visitor.asks_factor,
        )  # fmt: skip

    async def set_factor(self, request: web.Request, visitor: Visitor) -> web.Response:
        secret = str((await plain_form.read(request)).get("secret", ""))
        if not SECRET.fullmatch(secret):
            raise web.HTTPBadRequest
        codes = await self._logins.set_factor(visitor, secret, (await _tried(request)).code)
        if codes is None:
            fault = "refused_code"
            return await self.factor(request, visitor, fault=fault, status=422, secret=secret)
        return await self.factor(request, replace(visitor, factor=True), codes=codes)

    async def remove_factor(self, _: web.Request, visitor: Visitor) -> web.StreamResponse:
        await self._logins.remove_factor(visitor)
        return redirect("/console/me")


def _inside(token: str, then: str) -> web.StreamResponse:
    response = redirect(then)
    enter(response, token)
    return response
