"""Follow-ups that have no outcome yet; cancel a sequence, or end all of a person."""

from aiohttp import web

from libs.common.http import plain_form
from libs.common.http.application import path_id
from services.console.gateway import Gateway, items
from services.console.pages.door import Door
from services.console.pages.page import answered, page
from services.console.record import Looks
from services.console.rules import Role
from services.console.store.sessions import Visitor

PATH = "/console/followups"
STATES = ("scheduled", "handed_over", "in_doubt")
REASONS = ("staff", "reply", "bounce")


class FollowupRoutes:
    def __init__(self, door: Door, gateway: Gateway, looks: Looks) -> None:
        self._door = door
        self._gateway = gateway
        self._looks = looks

    def add_to(self, app: web.Application) -> None:
        self._door.add(app, "GET", PATH, self.list, Role.SALES)
        self._door.add(app, "POST", f"{PATH}/{{id}}/cancel", self.cancel, Role.SALES)
        self._door.add(app, "POST", f"{PATH}/{{id}}/stop", self.stop, Role.SALES)

    async def list(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        state = request.query.get("state", STATES[0])
        if state not in STATES:
            raise web.HTTPNotFound
        answer = await self._gateway.get(
            visitor, "/api/followups", status=state, cursor=request.query.get("cursor")
        )
        # A conversation is one person; its id stays after their steps have ended.
        seen = dict.fromkeys(one["conversation_id"] for one in items(answer))
        await self._looks.record(visitor, "followups.look", "conversation", seen)
        return page(
            request, "followups.html", "followups", visitor,
            status=status if answer.ok else answer.page_status, fault=fault or answer.fault,
            state=state, states=STATES, reasons=REASONS, steps=items(answer),
            cursor=answer.body["next_cursor"] if answer.ok else None,
        )  # fmt: skip

    async def cancel(self, request: web.Request, visitor: Visitor) -> web.Response:
        step = path_id(request, "follow-up")
        answer = await self._gateway.delete(visitor, f"/api/followups/{step}")
        return await answered(request, visitor, answer, self.list, PATH)

    async def stop(self, request: web.Request, visitor: Visitor) -> web.Response:
        """:raises web.HTTPBadRequest: not a form of ours"""
        form = await plain_form.read(request)
        reason = str(form.get("reason", ""))
        if reason not in REASONS:
            raise web.HTTPBadRequest
        body = {"conversation_id": str(path_id(request, "conversation")), "reason": reason}
        answer = await self._gateway.post(visitor, "/api/followups/stop", body)
        return await answered(request, visitor, answer, self.list, PATH)
