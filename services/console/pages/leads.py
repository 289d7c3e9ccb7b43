"""One lead, for those who call people back.

A lead may have cases: alerts that ask somebody to answer. An act answers them first and then sets
the lead's state. A kill in between leaves the old lead and an answered case; the same
press does the rest.
"""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web

from libs.common.http.application import path_id
from services.console.gateway import Answer, Gateway, items, part
from services.console.messages import RefusedError
from services.console.pages.base import Act, Call, Site, accepted
from services.console.pages.cases import NEED_REASON, AnswerPage, Said
from services.console.pages.page import page, unavailable, who
from services.console.rules import SALES, Role
from services.console.store.sessions import Visitor
from services.console.texts import ZONE

MOST_REQUESTS = 25
MOST_AT_ONCE = 50
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STATE_AFTER = {
    "taken": "taken",
    "won": "won",
    "lost": "lost",
    "not_a_lead": "not_a_lead",
    "release": "new",
    "reopen": "new",
    "undo": "taken",
    "hour": None,
    "morning": None,
    "remind": None,
}
"""The state of the lead that each button sets."""


class LeadPage(AnswerPage):
    path, roles, acting, verbs = "/console/leads/{id}", SALES, SALES, _STATE_AFTER

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        found = await self.site.gateway.get(visitor, f"/api/leads/{path_id(request, 'lead')}")
        if not found.ok:
            return unavailable(request, "lead", visitor, found, said.get("fault"))
        # followups of the previous release does not send these.
        lead = {"also": (), "previous": None, "next": None} | found.body
        here = {"conversation_id": lead["conversation_id"]}
        (ads, calls, since), mails, cases, requests = await asyncio.gather(
            self._consent(visitor, lead["email"], lead["phone"]),
            self.site.gateway.get(visitor, "/api/followups", **here),
            _cases(self.site.gateway, visitor, lead),
            self._requests(visitor, lead),
        )
        seen = [lead["id"], *(each["id"] for each in requests)]
        await self.site.looks.record(visitor, "lead.look", "lead", seen)
        known = [case.body for case in cases if case.ok]
        owner = _owner(lead, known)
        scheduled = [each["due_at"] for each in items(mails) if each["status"] == "scheduled"]
        return page(
            request, "lead.html", "lead", visitor, lead=lead,
            ads=ads, calls=calls, restricted_since=since, next_mail=min(scheduled, default=None),
            owner=owner, others=owner is not None and owner != visitor.name,
            next_ask=_next_ask(known), can_wait=any(case["state"] == "open" for case in known),
            cases_away=any(case.fault not in {None, "not_there"} for case in cases),
            requests=requests, path=f"/console/leads/{lead['id']}", nonce=uuid4(),
            has_case=any(case["state"] == "answered" for case in known),
            colleagues=await colleagues(self.site),
            did=did if (did := request.query.get("did")) in _STATE_AFTER else None,
            **{"reason": ""} | said,
        )  # fmt: skip

    async def _consent(
        self, visitor: Visitor, *contacts: str | None
    ) -> tuple[Mapping[str, Any], Mapping[str, Any], str | None]:
        """Ask how their consents to marketing by e-mail and phone stand, and for restrictions."""
        known = {who: f"/api/unsubscribe/status/{part(who)}" for who in contacts if who}
        asked = (self.site.gateway.get(visitor, path) for path in known.values())
        found = await asyncio.gather(*asked)
        told = {who: each.body for who, each in zip(known, found, strict=True) if each.ok}
        since = next(filter(None, (each["restricted_since"] for each in told.values())), None)
        ads, calls = (
            told[who]["purposes"].get("marketing", {}).get(by, {"state": "none"})
            if who in told
            else {"state": "unknown" if who else "none"}
            for who, by in zip(contacts, ("email", "phone"), strict=True)
        )
        return ads, calls, since

    async def _requests(self, visitor: Visitor, lead: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the other requests of this person, newest first."""
        contacts = filter(None, (lead["email"], lead["phone"]))
        get = self.site.gateway.get
        asked = (get(visitor, "/api/leads", person=who, limit=MOST_REQUESTS) for who in contacts)
        found = {each["id"]: each for got in await asyncio.gather(*asked) for each in items(got)}
        found.pop(lead["id"], None)
        return sorted(found.values(), key=lambda each: str(each["created_at"]), reverse=True)

    async def answer(self, call: Call, said: Said) -> None:
        await answer(call, call.id("lead"), said)

    def acts(self) -> Mapping[str, Act]:
        return {**super().acts(), **{f"/{of}": partial(_work, of=of) for of in WORK}}


async def colleagues(site: Site) -> list[str]:
    found = await site.people.listed()
    return [each.name for each in found if Role.SALES in each.roles and not each.disabled_at]


async def _work(call: Call, of: str) -> None:
    """Send a form's fields as an act on the lead; an empty one is unknown, or not said."""
    given = {name: call.text(name) or None for name in WORK[of] if name in call.form}
    if given.get("at"):
        local = datetime.fromisoformat(call.time("at")).replace(tzinfo=ZONE)
        given["at"] = local.isoformat()
    body: dict[str, Any] = {
        name: _number(text) if text and name in NUMBERS else text
        for name, text in given.items()
        if text or of in {"facts", "owner"}
    }
    body["version"] = round(_number(call.text("version")))
    await call.ask("POST", f"/api/leads/{call.id('lead')}/{of}", body)


def _number(text: str) -> float:
    """:raises RefusedError: it is none, or has too many digits"""
    digits = text.replace(",", ".").replace(" ", "").replace("\xa0", "")
    if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,2})?", digits):
        raise RefusedError("not_accepted", 422)
    return float(digits)


WORK: Mapping[str, tuple[str, ...]] = {
    "notes": ("text",),
    "calls": ("result", "at", "note"),
    "facts": ("name", "city", "wish", "area", "budget", "start"),
    "owner": ("owner",),
}
"""What staff do with a lead beside answering: the call's path, and the form's fields."""
NUMBERS = {"area", "budget"}


async def many(call: Call) -> Mapping[str, Any]:
    """Answer several leads alike; those that somebody else has stay as they are."""
    verb = call.chosen("answer", ("taken", "lost", "not_a_lead", "owner"))
    said = Said(verb, str(uuid4()), call.reason() if verb in NEED_REASON else None)
    done = 0
    chosen = [UUID(each) for each in call.form.getall("lead", ()) if _UUID.fullmatch(str(each))]
    for lead_id in chosen[:MOST_AT_ONCE]:
        with suppress(RefusedError):
            if verb == "owner":
                body = {"owner": call.text("owner")}
                await call.ask("POST", f"/api/leads/{lead_id}/owner", body)
            else:
                await answer(call, lead_id, said)
            done += 1
    return {"done": (done, len(chosen))}


async def answer(call: Call, lead_id: UUID, said: Said) -> None:
    """Answer the lead's cases, then set its state."""
    name, path = call.visitor.name, f"/api/leads/{lead_id}"
    gateway = call.site.gateway
    lead = accepted(await gateway.get(call.visitor, path)).body
    cases = await _cases(gateway, call.visitor, lead)
    if _owner(lead, [case.body for case in cases if case.ok]) not in {None, name}:
        raise RefusedError
    answered = False
    for case in cases:
        # Nobody is asked about an alert that has no case.
        if case.fault != "not_there" and _concerns(accepted(case).body, said.verb):
            await said.to(call, case.body["id"])
            answered = True
    if (state := _STATE_AFTER[said.verb]) is None:
        return
    if said.verb == "undo":
        await call.ask("POST", f"{path}/undo", {})
        return
    body: dict[str, Any] = {"state": state, "reason": said.reason}
    if value := call.text("order_value"):
        body["order_value"] = round(_number(value))
    done = await call.ask("POST", f"{path}/state", body)
    # If two take a lead without a case at once, the second changed nothing.
    if said.verb == "taken" and not answered and _owner(done.body, []) != name:
        raise RefusedError


async def _cases(gateway: Gateway, visitor: Visitor, lead: Mapping[str, Any]) -> list[Answer]:
    asked = (gateway.get(visitor, f"/api/cases/{id_}") for id_ in lead["alert_ids"])
    return await asyncio.gather(*asked)


def _owner(lead: Mapping[str, Any], cases: list[Mapping[str, Any]]) -> str | None:
    """Return the name of a lead's owner; None: nobody.

    A closed case stays with its closer. It says nothing about the lead, which may be open again.
    """
    if lead["state"] == "taken" and lead.get("owner"):
        return str(lead["owner"])
    live = [case for case in cases if case["outcome"] is None and case["state"] != "cancelled"]
    if not live and lead["state"] == "taken":
        return who(lead["state_by"] or "") or None
    return next((case["owner_name"] for case in live if case["owner_name"]), None)


def _concerns(case: Mapping[str, Any], verb: str) -> bool:
    """Return whether this button also answers a case of the lead."""
    states = {
        "hour": {"open"},
        "morning": {"open"},
        "release": {"answered"},
        "remind": {"answered"},
        "reopen": set[str](),  # the lead can be taken again without it
        "undo": set[str](),
    }
    concerned = states.get(verb, {"open", "unanswered", "answered"})
    return case["outcome"] is None and case["state"] in concerned


def _next_ask(cases: list[Mapping[str, Any]]) -> str | None:
    """Return when somebody else is asked next."""
    waits = [case["next_at"] for case in cases if case["state"] == "open" and case["next_at"]]
    return min(waits, default=None)
