"""People, for admins."""

from collections.abc import Awaitable
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from libs.common.http import plain_form
from libs.common.http.application import path_id
from services.console.api.keys import reason_in
from services.console.api.staff import Invite
from services.console.pages.door import Door
from services.console.pages.page import page, redirect
from services.console.people.people import (
    KnownPersonError,
    LastAdminError,
    People,
    UnknownPersonError,
)
from services.console.rules import Role
from services.console.store.sessions import Visitor

BAD = {"email": "bad_email", "name": "bad_name", "roles": "no_roles", "language": "no_roles"}


class StaffPages:
    def __init__(self, door: Door, staff: People) -> None:
        self._door = door
        self._people = staff

    def add_to(self, app: web.Application) -> None:
        for method, path, form in (
            ("GET", "/console/staff", self.staff_page),
            ("POST", "/console/staff", self.invite_form),
            ("POST", "/console/staff/{id}/invitation", self.invite_again_form),
            ("POST", "/console/staff/{id}/roles", self.roles_form),
            ("POST", "/console/staff/{id}/factor", self.reset_form),
            ("POST", "/console/staff/{id}/disable", self.disable_form),
        ):
            self._door.add(app, method, path, form, Role.ADMIN, fresh=True)

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
                visitor.actor, body.email, body.name, body.roles, body.language
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
            email, _ = await self._people.invite_again(visitor.actor, staff_id)
        except UnknownPersonError:
            raise web.HTTPNotFound from None
        return await self.staff_page(request, visitor, invited=email)

    async def roles_form(self, request: web.Request, visitor: Visitor) -> web.Response:
        roles = _roles((await plain_form.read(request)).getall("role", ()))
        if not roles:
            return await self.staff_page(request, visitor, fault="no_roles", status=422)
        change = self._people.set_roles(visitor.actor, path_id(request, "person"), roles)
        return await self._changed(request, visitor, change)

    async def reset_form(self, request: web.Request, visitor: Visitor) -> web.Response:
        change = self._people.reset_factor(visitor.actor, path_id(request, "person"))
        return await self._changed(request, visitor, change)

    async def disable_form(self, request: web.Request, visitor: Visitor) -> web.Response:
        reason = reason_in(await plain_form.read(request))
        if reason is None:
            return await self.staff_page(request, visitor, fault="bad_reason", status=422)
        change = self._people.disable(visitor.actor, path_id(request, "person"), reason)
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
