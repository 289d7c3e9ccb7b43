"""Silences: alerts of a kind that are not sent for a time."""

from datetime import UTC, datetime, timedelta

from aiohttp import web

from libs.common.http import plain_form
from services.console.api.keys import reason_in
from services.console.gateway import Gateway, items
from services.console.pages.door import Door
from services.console.pages.page import answered, page
from services.console.rules import Role, may
from services.console.store.sessions import Visitor

PATH = "/console/silences"
HOURS = (1, 4, 8, 24, 72, 336)
SEVERITIES = ("info", "warning", "critical")


class SilenceRoutes:
    def __init__(self, door: Door, gateway: Gateway) -> None:
        self._door = door
        self._gateway = gateway

    def add_to(self, app: web.Application) -> None:
        self._door.add(app, "GET", PATH, self.list, Role.VIEWER, Role.OPS)
        self._door.add(app, "POST", PATH, self.add, Role.OPS)
        self._door.add(app, "POST", f"{PATH}/{{id}}/end", self.end, Role.OPS)

    async def list(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        answer = await self._gateway.get(visitor, "/api/silences")
        return page(
            request, "silences.html", "silences", visitor,
            status=status if answer.ok else answer.page_status, fault=fault or answer.fault,
            silences=items(answer), hours=HOURS, severities=SEVERITIES,
            acts=may(visitor.roles, Role.OPS),
        )  # fmt: skip

    async def add(self, request: web.Request, visitor: Visitor) -> web.Response:
        form = await plain_form.read(request)
        reason, hours = reason_in(form), str(form.get("hours", ""))
        if reason is None or hours not in map(str, HOURS):
            return await self.list(request, visitor, fault="bad_reason", status=422)
        ends = datetime.now(UTC) + timedelta(hours=int(hours), seconds=-1)  # 14 days at most
        body = {
            "event_type": str(form.get("event_type", "")).strip(),
            "severity": str(form.get("severity", "")) or None,
            "ends": ends.isoformat(),
            "why": reason,
        }
        answer = await self._gateway.post(visitor, "/api/silences", body)
        named = {"not_accepted": "bad_event_type"}
        return await answered(request, visitor, answer, self.list, PATH, **named)

    async def end(self, request: web.Request, visitor: Visitor) -> web.Response:
        if not (number := request.match_info["id"]).isdecimal():
            raise web.HTTPNotFound
        answer = await self._gateway.delete(visitor, f"/api/silences/{number}")
        return await answered(request, visitor, answer, self.list, PATH)
