"""One case of a program: an alert that wants an answer and is not about a lead, for on-call."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import uuid4

from aiohttp import web

from libs.common.http.application import path_id
from services.console.messages import RefusedError, reason_in
from services.console.pages.base import Act, Call, Page
from services.console.pages.page import page, redirect, unavailable
from services.console.rules import OPS
from services.console.store.sessions import Visitor
from services.console.texts import ZONE

MORNING = time(8)
REMIND_AFTER = timedelta(minutes=30)
PUT_OFF = {"hour", "morning"}
"""They only put a case off, which alerts allows some times and not for long."""
NEED_REASON = {"lost", "not_a_lead", "false_alarm"}
VERBS = PUT_OFF | {"taken", "done", "false_alarm", "release", "remind", "hand_over"}
_NONCE = re.compile(r"[0-9a-f-]{36}")


@dataclass(frozen=True, slots=True)
class Said:
    """What a button says."""

    verb: str
    nonce: str
    """The form's; with it a second press has no further effect."""
    reason: str | None
    colleague: str | None = None

    async def to(self, call: Call, case_id: object) -> None:
        """Answer a case with this; raises as `Call.ask`."""
        named = {"not_accepted": "cannot_wait"} if self.verb in PUT_OFF else {}
        path, key = f"/api/cases/{case_id}/answer", f"{self.nonce} {self.verb}"
        await call.ask("POST", path, answer_of(self), key=key, **named)


class AnswerPage(Page):
    """One lead or case, with buttons that answer."""

    verbs: Collection[str]

    def acts(self) -> Mapping[str, Act]:
        return {"": self._press}

    async def answer(self, call: Call, said: Said) -> None:
        raise NotImplementedError

    async def _press(self, call: Call) -> web.Response:
        said = Said(
            call.text("answer"), call.text("nonce"), reason_in(call.form), call.text("to") or None
        )
        if said.verb not in self.verbs or not _NONCE.fullmatch(said.nonce):
            raise web.HTTPNotFound
        if said.verb in NEED_REASON and said.reason is None:
            raise RefusedError("bad_reason", 422, reason=call.text("reason")[:500])
        await self.answer(call, said)
        return redirect(f"{self.path.format(**call.request.match_info)}?did={said.verb}")


class CasePage(AnswerPage):
    path, roles, acting, verbs = "/console/cases/{id}", OPS, OPS, VERBS

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        found = await self.site.gateway.get(visitor, f"/api/cases/{path_id(request, 'case')}")
        if not found.ok:
            return unavailable(request, "case", visitor, found, said.get("fault"))
        if found.body.get("payload"):
            await self.site.looks.record(visitor, "alert.look", "alert", [found.body["id"]])
        return page(
            request, "case.html", "case", visitor, case=found.body,
            path=request.path, nonce=uuid4(), **{"reason": ""} | said,
        )  # fmt: skip

    async def answer(self, call: Call, said: Said) -> None:
        await said.to(call, call.id("case"))


def answer_of(said: Said) -> dict[str, Any]:
    """Return what a button says to the API of cases."""
    verb, now = said.verb, datetime.now(UTC)
    if verb == "hour":
        return {"answer": "later", "until": (now + timedelta(hours=1)).isoformat()}
    if verb == "morning":
        tomorrow = now.astimezone(ZONE).date() + timedelta(days=1)
        return {"answer": "later", "until": datetime.combine(tomorrow, MORNING, ZONE).isoformat()}
    if verb == "remind":
        return {"answer": verb, "until": (now + REMIND_AFTER).isoformat()}
    given = {"to": said.colleague} if verb == "hand_over" else {}
    return {"answer": verb, "reason": said.reason} | given
