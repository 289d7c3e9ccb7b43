"""Leads, for those who call people back: the list, one lead, and those that a robot may have sent.

A lead may have cases: alerts that ask somebody to answer. An act answers them first and then sets
the lead's state. Killed in between, the page shows the lead as it was and the case as answered; the
same press does the rest.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from aiohttp import web

from libs.common.http import plain_form
from libs.common.http.application import path_id
from services.console.gateway import Answer, Gateway, items, part
from services.console.pages.cases import answer_of, press
from services.console.pages.door import REFRESH, Door
from services.console.pages.page import answered, page, unavailable, who
from services.console.record import Looks
from services.console.rules import Role
from services.console.store.sessions import Visitor

PATH = "/console/leads"
SUSPECTED = f"{PATH}/suspected"
STATES = ("new", "taken", "won", "lost", "not_a_lead")
PAGE = 25
_STATE_AFTER = {
    "taken": "taken",
    "won": "won",
    "lost": "lost",
    "not_a_lead": "not_a_lead",
    "release": "new",
    "reopen": "new",
    "hour": None,
    "morning": None,
}
"""What each button makes of the lead."""


class LeadRoutes:
    def __init__(self, door: Door, gateway: Gateway, looks: Looks) -> None:
        self._door = door
        self._gateway = gateway
        self._looks = looks

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", PATH, self.listed),
            ("GET", SUSPECTED, self.suspected),
            ("POST", SUSPECTED + "/{id}", self.decide),
            ("GET", PATH + "/{id}", self.lead),
            ("POST", PATH + "/{id}", self.act),
        ):
            self._door.add(app, method, path, handler, Role.SALES)

    async def listed(self, request: web.Request, visitor: Visitor) -> web.Response:
        state = request.query.get("state", STATES[0])
        if state not in STATES:
            raise web.HTTPNotFound
        after = request.query.get("after")
        found, suspected = await asyncio.gather(
            self._gateway.get(visitor, "/api/leads", state=state, limit=PAGE, cursor=after),
            self._gateway.get(visitor, "/api/leads/suspected", limit=PAGE),
        )
        ids, again = (one["id"] for one in items(found)), REFRESH in request.headers
        await self._looks.record(visitor, "lead.look", "lead", ids, again=again)
        return page(
            request, "leads.html", "leads", visitor, live="leads", fault=found.fault,
            status=found.page_status, state=state, states=STATES, leads=items(found),
            older=found.body["next_cursor"] if found.ok else None, suspected=len(items(suspected)),
            more_suspected=suspected.ok and suspected.body["next_cursor"] is not None,
        )  # fmt: skip

    async def suspected(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        after = request.query.get("after")
        found = await self._gateway.get(visitor, "/api/leads/suspected", limit=PAGE, cursor=after)
        ids = (one["id"] for one in items(found))
        await self._looks.record(visitor, "lead.look", "submission", ids)
        return page(
            request, "suspected.html", "suspected", visitor, fault=fault or found.fault,
            status=status if found.ok else found.page_status, items=items(found),
            newer=found.body["next_cursor"] if found.ok else None,
        )  # fmt: skip

    async def decide(self, request: web.Request, visitor: Visitor) -> web.Response:
        verb = (await plain_form.read(request)).get("answer")
        if verb not in {"release", "discard"}:
            raise web.HTTPNotFound
        path = f"/api/leads/suspected/{path_id(request, 'lead')}/{verb}"
        done = await self._gateway.post(visitor, path)
        return await answered(request, visitor, done, self.suspected, SUSPECTED)

    async def lead(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None,
        status: int = 200, reason: str = "",
    ) -> web.Response:  # fmt: skip
        found = await self._gateway.get(visitor, f"/api/leads/{path_id(request, 'lead')}")
        if not found.ok:
            return unavailable(request, "lead", visitor, found, fault)
        lead = found.body
        here = {"conversation_id": lead["conversation_id"]}
        (consent, since), mails, cases = await asyncio.gather(
            self._consent(visitor, lead["email"], lead["phone"]),
            self._gateway.get(visitor, "/api/followups", **here),
            self._cases(visitor, lead),
        )
        await self._looks.record(visitor, "lead.look", "lead", [lead["id"]])
        known = [case.body for case in cases if case.ok]
        owner = _owner(lead, known)
        scheduled = [each["due_at"] for each in items(mails) if each["status"] == "scheduled"]
        return page(
            request, "lead.html", "lead", visitor, fault=fault, status=status, lead=lead,
            ads=consent, restricted_since=since, next_mail=min(scheduled, default=None),
            owner=owner, others=owner is not None and owner != visitor.name,
            next_ask=_next_ask(known), can_wait=any(case["state"] == "open" for case in known),
            cases_away=any(case.fault not in {None, "not_there"} for case in cases),
            path=request.path, nonce=uuid4(), reason=reason,
        )  # fmt: skip

    async def _consent(
        self, visitor: Visitor, *contacts: str | None
    ) -> tuple[Mapping[str, Any], str | None]:
        """Ask how their consent to marketing by e-mail stands now, and what restricts us."""
        known = {who: f"/api/unsubscribe/status/{part(who)}" for who in contacts if who}
        found = await asyncio.gather(*(self._gateway.get(visitor, path) for path in known.values()))
        told = {who: each.body for who, each in zip(known, found, strict=True) if each.ok}
        since = next(filter(None, (each["restricted_since"] for each in told.values())), None)
        if not (email := contacts[0]):
            return {"state": "none"}, since
        ads = told[email]["purposes"]["marketing"]["email"] if email in told else None
        return ads or {"state": "unknown"}, since

    async def _cases(self, visitor: Visitor, lead: Mapping[str, Any]) -> list[Answer]:
        asked = (self._gateway.get(visitor, f"/api/cases/{id_}") for id_ in lead["alert_ids"])
        return await asyncio.gather(*asked)

    async def act(self, request: web.Request, visitor: Visitor) -> web.Response:
        answer = partial(self._answered, visitor, str(path_id(request, "lead")))
        return await press(request, visitor, _STATE_AFTER, self.lead, answer)

    async def _answered(
        self, visitor: Visitor, lead_id: str, verb: str, nonce: str, reason: str | None
    ) -> Answer:
        """Answer the lead's cases, then set its state; return a fault, or the last answer."""
        found = await self._gateway.get(visitor, f"/api/leads/{lead_id}")
        if not found.ok:
            return found
        cases = await self._cases(visitor, found.body)
        if _owner(found.body, [case.body for case in cases if case.ok]) not in {None, visitor.name}:
            return Answer(409)
        answered = await self._answer_cases(visitor, cases, verb, nonce, reason)
        if answered is not None and not answered.ok:
            return answered
        if (state := _STATE_AFTER[verb]) is None:
            return found
        body = {"state": state, "reason": reason}
        done = await self._gateway.post(visitor, f"/api/leads/{lead_id}/state", body)
        if done.ok and verb == "taken" and answered is None:
            # Of two who take a lead without a case at once, the second changed nothing.
            return done if _owner(done.body, []) == visitor.name else Answer(409)
        return done

    async def _answer_cases(
        self, visitor: Visitor, cases: list[Answer], verb: str, nonce: str, reason: str | None
    ) -> Answer | None:
        """Return a fault, or the last answer; None: the press concerns no case."""
        done = None
        for case in cases:
            if case.fault == "not_there":  # nobody is asked about this alert
                continue
            if not case.ok:
                return case
            if (said := _said(case.body, verb, reason)) is None:
                continue
            path = f"/api/cases/{case.body['id']}/answer"
            done = await self._gateway.post(visitor, path, said, key=f"{nonce} {verb}")
            if not done.ok:
                return done
        return done


def _owner(lead: Mapping[str, Any], cases: list[Mapping[str, Any]]) -> str | None:
    """Return the name of who has a lead; None: nobody.

    A closed case stays with who closed it. It says nothing of the lead, which may be open again.
    """
    live = [case for case in cases if case["outcome"] is None and case["state"] != "cancelled"]
    if not live and lead["state"] == "taken":
        return who(lead["state_by"] or "") or None
    return next((case["owner_name"] for case in live if case["owner_name"]), None)


def _said(case: Mapping[str, Any], verb: str, reason: str | None) -> dict[str, Any] | None:
    """Return what to answer to a case of the lead; None: this press does not concern it."""
    if case["outcome"] is not None:
        return None
    concerned = {
        "hour": {"open"},
        "morning": {"open"},
        "release": {"answered"},
        "reopen": set[str](),  # the lead can be taken again without it
    }
    if case["state"] not in concerned.get(verb, {"open", "unanswered", "answered"}):
        return None
    return answer_of(verb, reason)


def _next_ask(cases: list[Mapping[str, Any]]) -> str | None:
    """Return when somebody else is asked next."""
    waits = [case["next_at"] for case in cases if case["state"] == "open" and case["next_at"]]
    return min(waits, default=None)
