"""People: pages for admins, and the same for the command line."""

from collections.abc import Awaitable
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field, ValidationError

from libs.common.http import plain_form
from libs.common.http.application import Model, json_response, parse, path_id
from libs.domain.acts import Actor
from libs.domain.email_address import Email
from services.console.http.caller import for_admins
from services.console.http.door import Door
from services.console.http.keys import Name, Reason, reason_in
from services.console.http.pages import page, redirect
from services.console.people import (
    KnownPersonError,
    LastAdminError,
    People,
    ShownError,
    UnknownPersonError,
    actor_of,
)
from services.console.person import Role
from services.console.store.sessions import Visitor
from services.console.sync import KeysRestoredError

Roles = Annotated[list[Annotated[Role, Field(strict=False)]], Field(min_length=1)]
STATUS = {
    UnknownPersonError: 404,
    KnownPersonError: 409,
    LastAdminError: 409,
    KeysRestoredError: 409,
    ShownError: 403,
}
BAD = {"email": "bad_email", "name": "bad_name", "roles": "no_roles", "language": "no_roles"}


class Again(Model):
    show_link: bool = False
    """Answer with the link instead of mailing it: for somebody whom no mail reaches."""


class Invite(Again):
    email: Email
    name: Name
    roles: Roles
    language: Literal["pl", "en"] = "pl"


class SetRoles(Model):
    roles: Roles


class Disable(Model):
    reason: Reason


class StaffRoutes:
    def __init__(self, door: Door, staff: People) -> None:
        self._door = door
        self._people = staff

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "/api/staff", self.everybody),
            ("POST", "/api/staff", self.invite),
            ("POST", "/api/staff/{id}/invitation", self.invite_again),
            ("POST", "/api/staff/{id}/roles", self.set_roles),
            ("POST", "/api/staff/{id}/reset-factor", self.reset_factor),
            ("POST", "/api/staff/{id}/disable", self.disable),
        ):
            app.router.add_route(method, path, for_admins(handler, STATUS))
        for method, path, form in (
            ("GET", "/console/staff", self.staff_page),
            ("POST", "/console/staff", self.invite_form),
            ("POST", "/console/staff/{id}/invitation", self.invite_again_form),
            ("POST", "/console/staff/{id}/roles", self.roles_form),
            ("POST", "/console/staff/{id}/factor", self.reset_form),
            ("POST", "/console/staff/{id}/disable", self.disable_form),
        ):
            self._door.add(app, method, path, form, Role.ADMIN, fresh=True)

    async def everybody(self, _: web.Request) -> web.Response:
        found = await self._people.listed()
        shown = [
            {
                "id": str(each.id),
                "email": each.email,
                "name": each.name,
                "roles": each.roles,
                "joined": each.joined,
                "disabled": each.disabled_at is not None,
            }
            for each in found
        ]
        return json_response({"items": shown})

    async def invite(self, request: web.Request) -> web.Response:
        body = await parse(request, Invite)
        staff_id, link = await self._people.invite(
            Actor.of(request.headers), body.email, body.name, body.roles, body.language,
            show=body.show_link,
        )  # fmt: skip
        return json_response({"id": str(staff_id), "link": link}, 201)

    async def invite_again(self, request: web.Request) -> web.Response:
        body = await parse(request, Again) if request.body_exists else Again()
        actor, staff_id = Actor.of(request.headers), path_id(request, "person")
        _, link = await self._people.invite_again(actor, staff_id, show=body.show_link)
        return json_response({"link": link}, 201)

    async def reset_factor(self, request: web.Request) -> web.Response:
        await self._people.reset_factor(Actor.of(request.headers), path_id(request, "person"))
        return json_response({"reset": True})

    async def set_roles(self, request: web.Request) -> web.Response:
        body = await parse(request, SetRoles)
        await self._people.set_roles(
            Actor.of(request.headers), path_id(request, "person"), body.roles
        )
        return json_response({"roles": body.roles})

    async def disable(self, request: web.Request) -> web.Response:
        body = await parse(request, Disable)
        await self._people.disable(
            Actor.of(request.headers), path_id(request, "person"), body.reason
        )
        return json_response({"disabled": True})

    async def staff_page(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None,
        status: int = 200, invited: str = "",
    ) -> web.Response:  # fmt: skip
        found = await self._people.listed()
        return page(
            request, "staff.html", "staff", visitor, status=status, fault=fault, people=found,
            roles=list(Role), invited=invited, alone=set(visitor.roles) == set(Role),
        )  # fmt: skip

    async def invite_form(self, request: web.Request, visitor: Visitor) -> web.Response:
        form = await plain_form.read(request)
        given: dict[str, Any] = {name: form.get(name) for name in ("email", "name", "language")}
        try:
            body = Invite.model_validate(given | {"roles": _roles(form.getall("role", ()))})
            await self._people.invite(
                actor_of(visitor), body.email, body.name, body.roles, body.language
            )
        except ValidationError as error:
            fault = BAD[str(error.errors()[0]["loc"][0])]
            return await self.staff_page(request, visitor, fault=fault, status=422)
        except KnownPersonError:
            return await self.staff_page(request, visitor, fault="known_person", status=422)
        return await self.staff_page(request, visitor, invited=body.email)

    async def invite_again_form(self, request: web.Request, visitor: Visitor) -> web.Response:
        staff_id = path_id(request, "person")
        try:
            email, _ = await self._people.invite_again(actor_of(visitor), staff_id)
        except UnknownPersonError:
            raise web.HTTPNotFound from None
        return await self.staff_page(request, visitor, invited=email)

    async def roles_form(self, request: web.Request, visitor: Visitor) -> web.Response:
        roles = _roles((await plain_form.read(request)).getall("role", ()))
        if not roles:
            return await self.staff_page(request, visitor, fault="no_roles", status=422)
        change = self._people.set_roles(actor_of(visitor), path_id(request, "person"), roles)
        return await self._changed(request, visitor, change)

    async def reset_form(self, request: web.Request, visitor: Visitor) -> web.Response:
        change = self._people.reset_factor(actor_of(visitor), path_id(request, "person"))
        return await self._changed(request, visitor, change)

    async def disable_form(self, request: web.Request, visitor: Visitor) -> web.Response:
        reason = reason_in(await plain_form.read(request))
        if reason is None:
            return await self.staff_page(request, visitor, fault="bad_reason", status=422)
        change = self._people.disable(actor_of(visitor), path_id(request, "person"), reason)
        return await self._changed(request, visitor, change)

    async def _changed(
        self, request: web.Request, visitor: Visitor, change: Awaitable[None]
    ) -> web.Response:
        try:
            await change
        except LastAdminError:
            return await self.staff_page(request, visitor, fault="last_admin", status=409)
        except UnknownPersonError:
            raise web.HTTPNotFound from None
        return redirect("/console/staff")


def _roles(given: Any) -> list[Role]:
    return [role for role in Role if role in {str(each) for each in given}]
