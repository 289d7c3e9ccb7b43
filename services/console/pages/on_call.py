"""Who is on call, and who stands in for whom."""

from datetime import UTC, datetime, timedelta

from aiohttp import web

from libs.common.http import plain_form
from services.console.api.keys import reason_in
from services.console.gateway import Gateway
from services.console.pages.door import Door
from services.console.pages.page import answered, page
from services.console.rules import Role, may
from services.console.store.sessions import Visitor

PATH = "/console/oncall"
HOURS = (4, 8, 24, 72, 168, 336)


class OnCallRoutes:
    def __init__(self, door: Door, gateway: Gateway) -> None:
        self._door = door
        self._gateway = gateway

    def add_to(self, app: web.Application) -> None:
        self._door.add(app, "GET", PATH, self.list, Role.VIEWER, Role.OPS)
        self._door.add(app, "POST", PATH, self.add, Role.OPS)
        self._door.add(app, "POST", f"{PATH}/{{id}}/remove", self.remove, Role.OPS)

    async def list(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        answer = await self._gateway.get(visitor, "/api/oncall")
        found = answer.body if answer.ok else {"schedules": {}, "overrides": []}
        return page(
            request, "oncall.html", "oncall", visitor,
            status=status if answer.ok else answer.page_status, fault=fault or answer.fault,
            schedules=sorted(found["schedules"].items()), overrides=found["overrides"],
            hours=HOURS, acts=may(visitor.roles, Role.OPS),
        )  # fmt: skip

    async def add(self, request: web.Request, visitor: Visitor) -> web.Response:
        form = await plain_form.read(request)
        reason, hours = reason_in(form), str(form.get("hours", ""))
        if reason is None or hours not in map(str, HOURS):
            return await self.list(request, visitor, fault="bad_reason", status=422)
        schedule, _, person = str(form.get("who", "")).partition(" ")
        ends = datetime.now(UTC) + timedelta(hours=int(hours))
        body = {"schedule": schedule, "person": person, "ends": ends.isoformat(), "why": reason}
        answer = await self._gateway.post(visitor, "/api/oncall/overrides", body)
        named = {"changed_meanwhile": "stands_in_already"}
        return await answered(request, visitor, answer, self.list, PATH, **named)

    async def remove(self, request: web.Request, visitor: Visitor) -> web.Response:
        if not (number := request.match_info["id"]).isdecimal():
            raise web.HTTPNotFound
        answer = await self._gateway.delete(visitor, f"/api/oncall/overrides/{number}")
        return await answered(request, visitor, answer, self.list, PATH)
