"""Cases of programs: alerts that want an answer and are not about leads, for who is on call."""

import re
from collections.abc import Awaitable, Callable, Container
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import uuid4

from aiohttp import web

from libs.common.http import plain_form
from libs.common.http.application import path_id
from services.console.api.keys import reason_in
from services.console.gateway import Answer, Gateway, items
from services.console.pages.door import Door
from services.console.pages.page import Shown, answered, page, unavailable
from services.console.rules import Role
from services.console.store.sessions import Visitor
from services.console.texts import ZONE

PATH = "/console/cases"
STATES = ("open", "unanswered", "answered")
OTHERS = {"leads": "false", "closed": "false"}
"""Of the API's list: those that are not about leads, and not over."""
MORNING = time(8)
PUT_OFF = {"hour", "morning"}
"""They only put a case off, which alerts allows some times and not for long."""
NEED_REASON = {"lost", "not_a_lead", "false_alarm"}
VERBS = PUT_OFF | {"taken", "done", "false_alarm", "release"}
_NONCE = re.compile(r"[0-9a-f-]{36}")


class CaseRoutes:
    def __init__(self, door: Door, gateway: Gateway) -> None:
        self._door = door
        self._gateway = gateway

    def add_to(self, app: web.Application) -> None:
        self._door.add(app, "GET", PATH, self.list, Role.OPS)
        self._door.add(app, "GET", PATH + "/{id}", self.case, Role.OPS)
        self._door.add(app, "POST", PATH + "/{id}", self.act, Role.OPS)

    async def list(self, request: web.Request, visitor: Visitor) -> web.Response:
        state, after = request.query.get("state", STATES[0]), request.query.get("after")
        if state not in STATES:
            raise web.HTTPNotFound
        found = await self._gateway.get(visitor, "/api/cases", state=state, after=after, **OTHERS)
        return page(
            request, "cases.html", "cases", visitor, live="cases", fault=found.fault,
            status=found.page_status, state=state, states=STATES, cases=items(found),
            newer=found.body["next"] if found.ok else None,
        )  # fmt: skip

    async def case(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None,
        status: int = 200, reason: str = "",
    ) -> web.Response:  # fmt: skip
        found = await self._gateway.get(visitor, f"/api/cases/{path_id(request, 'case')}")
        if not found.ok:
            return unavailable(request, "case", visitor, found, fault)
        return page(
            request, "case.html", "case", visitor, fault=fault, status=status, case=found.body,
            path=request.path, nonce=uuid4(), reason=reason,
        )  # fmt: skip

    async def act(self, request: web.Request, visitor: Visitor) -> web.Response:
        path = f"/api/cases/{path_id(request, 'case')}/answer"

        async def answer(verb: str, nonce: str, reason: str | None) -> Answer:
            said = answer_of(verb, reason)
            return await self._gateway.post(visitor, path, said, key=f"{nonce} {verb}")

        return await press(request, visitor, VERBS, self.case, answer)


async def press(
    request: web.Request, visitor: Visitor, verbs: Container[str], show: Shown,
    act: Callable[[str, str, str | None], Awaitable[Answer]],
) -> web.Response:  # fmt: skip
    """Do what a button of a lead or a case says, and show that again.

    :param act: takes the button, the form's nonce, by which a second press of it is the first one,
        and the reason
    """
    form = await plain_form.read(request)
    verb, nonce, reason = str(form.get("answer")), str(form.get("nonce")), reason_in(form)
    if verb not in verbs or not _NONCE.fullmatch(nonce):
        raise web.HTTPNotFound
    if verb in NEED_REASON and reason is None:
        given = str(form.get("reason", ""))[:500]
        return await show(request, visitor, fault="bad_reason", status=422, reason=given)
    named = {"not_accepted": "cannot_wait"} if verb in PUT_OFF else {}
    done = await act(verb, nonce, reason)
    return await answered(request, visitor, done, show, request.path, **named)


def answer_of(verb: str, reason: str | None) -> dict[str, Any]:
    """Return what a button says to the API of cases."""
    now = datetime.now(UTC)
    if verb == "hour":
        return {"answer": "later", "until": (now + timedelta(hours=1)).isoformat()}
    if verb == "morning":
        tomorrow = now.astimezone(ZONE).date() + timedelta(days=1)
        return {"answer": "later", "until": datetime.combine(tomorrow, MORNING, ZONE).isoformat()}
    return {"answer": verb, "reason": reason}
