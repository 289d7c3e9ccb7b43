"""Rate limits: what is in force and where it comes from; change one, or take the change back."""

from aiohttp import web

from libs.common.http import plain_form
from services.console.gateway import Gateway
from services.console.pages.door import Door
from services.console.pages.page import answered, page
from services.console.rules import Role, may
from services.console.store.sessions import Visitor

PATH = "/console/limits"
CHANGEABLE = ("chat", "minute", "hour", "chat_budget", "write_budget", "withdrawal_budget")
OTHERS = ("service", "slack", "health", "console", "login")


class LimitRoutes:
    def __init__(self, door: Door, gateway: Gateway) -> None:
        self._door = door
        self._gateway = gateway

    def add_to(self, app: web.Application) -> None:
        self._door.add(app, "GET", PATH, self.limits, Role.VIEWER, Role.OPS)
        self._door.add(app, "POST", f"{PATH}/{{name}}", self.change, Role.OPS)

    async def limits(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        answer = await self._gateway.get(visitor, "/api/ratelimits")
        return page(
            request, "limits.html", "limits", visitor,
            status=status if answer.ok else answer.page_status, fault=fault or answer.fault,
            limits=answer.body if answer.ok else None, changeable=CHANGEABLE, others=OTHERS,
            acts=may(visitor.roles, Role.OPS),
        )  # fmt: skip

    async def change(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Without a text the change before is taken back."""
        if (name := request.match_info["name"]) not in CHANGEABLE:
            raise web.HTTPNotFound
        limit = str((await plain_form.read(request)).get("limit", "")).strip()
        answer = await self._gateway.put(visitor, "/api/ratelimits", {name: limit or None})
        named = {"not_accepted": "bad_limit"}
        return await answered(request, visitor, answer, self.limits, PATH, **named)
