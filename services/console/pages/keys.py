"""API keys as pages, for admins."""

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http import plain_form
from services.console.api.keys import STATUS, Create, key_state, reason_in
from services.console.keys.keys import Confirmation, Keys, grantable
from services.console.pages.door import Door
from services.console.pages.page import page
from services.console.rules import ID, Role, Secret
from services.console.store import keys
from services.console.store.sessions import Visitor
from services.console.texts import moment

DAYS = (30, 90, 365)
OVERLAPS = (24, 0, 168)


class KeyPages:
    def __init__(self, engine: AsyncEngine, door: Door, changes: Keys) -> None:
        self._engine = engine
        self._door = door
        self._keys = changes

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "/console/keys", self.show),
            ("POST", "/console/keys", self.create),
            ("POST", "/console/keys/{id}/rotate", self.rotate),
            ("POST", "/console/keys/{id}/revoke", self.revoke),
        ):
            self._door.add(app, method, path, handler, Role.ADMIN, fresh=True)

    async def show(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None,
        status: int = 200, secret: Secret | None = None, confirmed: Confirmation | None = None,
    ) -> web.Response:  # fmt: skip
        async with self._engine.connect() as tx:
            found = await keys.listed(tx)
        shown = [
            {
                **each,
                "state": key_state(each).replace(" ", "_"),
                "ends": moment(each["revoked_at"] or each["expires_at"]),
                "used": each["last_used_at"] and moment(each["last_used_at"]),
            }
            for each in found
        ]
        return page(
            request, "keys.html", "keys", visitor, status=status, fault=fault, keys=shown,
            scopes=grantable(visitor.roles), days=DAYS, overlaps=OVERLAPS, secret=secret,
            waiting=[each.process for each in confirmed.waiting_for] if confirmed else [],
            confirmed=confirmed is not None,
        )  # fmt: skip

    async def create(self, request: web.Request, visitor: Visitor) -> web.Response:
        form = await plain_form.read(request)
        days = str(form.get("days", ""))
        limit = str(form.get("limit", "")).strip()
        try:
            body = Create.model_validate(
                {
                    **{name: str(form.get(name, "")) for name in ("name", "purpose", "owner")},
                    "scopes": list(form.getall("scope", ())),
                    "expires_at": datetime.now(UTC) + timedelta(days=int(days)),
                    "limits": [limit] if limit else [],
                }
            )
        except (ValidationError, ValueError):
            return await self.show(request, visitor, fault="bad_key", status=422)
        values = body.model_dump() | {"scopes": sorted(set(body.scopes))}
        return await self._changed(request, visitor, self._keys.create(visitor.actor, values))

    async def rotate(self, request: web.Request, visitor: Visitor) -> web.Response:
        hours = str((await plain_form.read(request)).get("overlap", ""))
        if hours not in map(str, OVERLAPS):
            return await self.show(request, visitor, fault="bad_key", status=422)
        change = self._keys.rotate(visitor.actor, _id(request), timedelta(hours=int(hours)), None)
        return await self._changed(request, visitor, change)

    async def revoke(self, request: web.Request, visitor: Visitor) -> web.Response:
        reason = reason_in(await plain_form.read(request))
        if reason is None:
            return await self.show(request, visitor, fault="bad_reason", status=422)

        async def revoked() -> tuple[None, Confirmation]:
            return None, await self._keys.revoke(visitor.actor, _id(request), reason)

        return await self._changed(request, visitor, revoked())

    async def _changed(
        self,
        request: web.Request,
        visitor: Visitor,
        change: Awaitable[tuple[Secret | None, Confirmation]],
    ) -> web.Response:
        """Answer with the page itself, and not by a redirect: a secret must be in no URL."""
        try:
            secret, confirmed = await change
        except tuple(STATUS) as error:
            status: Any = STATUS[type(error)]
            fault = {403: "not_yours", 404: "not_found"}.get(status, "key_refused")
            return await self.show(request, visitor, fault=fault, status=status)
        return await self.show(request, visitor, secret=secret, confirmed=confirmed)


def _id(request: web.Request) -> str:
    if not ID.fullmatch(given := request.match_info["id"]):
        raise web.HTTPNotFound
    return given
