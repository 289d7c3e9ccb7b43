"""Logging in and out, invitations, the step-up, and one's own account."""

from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine
from yarl import URL

from libs.common.email_address import MalformedEmail, normalise
from libs.common.http import plain_form
from services.console.http.door import Door, browser_of, enter, leave, next_page
from services.console.http.pages import HEADERS, moment, page, redirect, static
from services.console.passwords import TooManyError
from services.console.people import People, UsedInvitationError
from services.console.person import LANGUAGES, LONGEST, password_fault
from services.console.store import people, sessions
from services.console.store.sessions import Visitor

MOST_LETTERS = 4 * LONGEST


class LoginRoutes:
    def __init__(self, engine: AsyncEngine, door: Door, staff: People) -> None:
        self._engine = engine
        self._door = door
        self._people = staff

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "/console/static/{name}", static),
            ("GET", "/console", self.to_home),
            ("GET", "/console/login", self.login_page),
            ("POST", "/console/login", self.login),
            ("POST", "/console/logout", self._door.only(self.logout)),
            ("GET", "/console/invitation/{token}", self.invitation_page),
            ("POST", "/console/invitation/{token}", self.accept),
            ("GET", "/console/confirm", self._door.only(self.confirm_page)),
            ("POST", "/console/confirm", self._door.only(self.confirm)),
            ("GET", "/console/me", self._door.only(self.me)),
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
            new=False, button="login",
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
        given, password = str(form.get("email", "")), str(form.get("password", ""))
        then = next_page(form.get("next"))
        if not self._door.keeps_secrets:
            return self._login(request, then, status=403)
        try:
            email = normalise(given)
        except MalformedEmail:
            email = ""  # costs as much as any other
        try:
            token = await self._people.log_in(email, password[:MOST_LETTERS], browser_of(request))
        except TooManyError:
            return self._login(request, then, given[:254], fault="busy", status=503)
        if token is None:
            return self._login(request, then, given[:254], fault="refused", status=403)
        response = redirect(then)
        enter(response, token)
        return response

    async def logout(self, _: web.Request, visitor: Visitor) -> web.StreamResponse:
        await self._people.end_session(visitor, visitor.session)
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
            button="join",
        )  # fmt: skip

    async def accept(self, request: web.Request) -> web.StreamResponse:
        token = request.match_info["token"]
        password = str((await plain_form.read(request)).get("password", ""))
        async with self._engine.connect() as tx:
            found = await people.invited(tx, token)
        if found is None or not self._door.keeps_secrets:
            return await self._invitation(request)
        if fault := password_fault(password, found.email):
            return await self._invitation(request, fault=fault, status=422)
        try:
            session = await self._people.accept(token, password, browser_of(request))
        except UsedInvitationError:
            return await self._invitation(request)
        response = redirect("/console/")
        enter(response, session)
        return response

    async def confirm_page(self, request: web.Request, visitor: Visitor) -> web.Response:
        return await self._confirm(request, visitor, next_page(request.query.get("next")))

    async def _confirm(
        self, request: web.Request, visitor: Visitor, then: str, *, fault: str | None = None,
        status: int = 200,
    ) -> web.Response:  # fmt: skip
        async with self._engine.connect() as tx:
            hashed = await people.password_hash(tx, visitor.staff_id)
        by_password = hashed is not None and self._door.ways.passwords
        return self._form(
            request, "confirm", visitor, passwords=by_password,
            oidc="" if by_password else "/console/confirm/oidc",
            text="confirm_text" if by_password else "confirm_oidc", status=status, fault=fault,
            action="/console/confirm", next=then, asks_email=False, email=visitor.email, new=False,
            button="confirm_button",
        )  # fmt: skip

    async def confirm(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        form = await plain_form.read(request)
        then, password = next_page(form.get("next")), str(form.get("password", ""))
        if not await self._people.confirm(visitor, password[:MOST_LETTERS]):
            return await self._confirm(request, visitor, then, fault="refused", status=403)
        return redirect(then)

    async def me(self, request: web.Request, visitor: Visitor) -> web.Response:
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
        return page(request, "me.html", "me", visitor, sessions=shown)

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
        await self._people.end_session(visitor, session)
        return redirect("/console/me")
