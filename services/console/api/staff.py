"""People, for the command line."""

from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from libs.common.http.application import Model, json_response, parse, path_id
from libs.domain.acts import Actor
from libs.domain.email_address import Email
from services.console.api.caller import for_admins
from services.console.api.keys import Name, Reason
from services.console.people.people import (
    KnownPersonError,
    LastAdminError,
    People,
    ShownError,
    UnknownPersonError,
)
from services.console.rules import Role
from services.console.store.versions import KeysRestoredError

Roles = Annotated[list[Annotated[Role, Field(strict=False)]], Field(min_length=1)]
STATUS = {
    UnknownPersonError: 404,
    KnownPersonError: 409,
    LastAdminError: 409,
    KeysRestoredError: 409,
    ShownError: 403,
}


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
    def __init__(self, staff: People) -> None:
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
