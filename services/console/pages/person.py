"""What Ostoja holds of a person who asks (GDPR, Art. 15, 17, 20): look, export, withdraw, erase.

An address is in no URL, so a look is a form and its answer is the page itself. Each look is
recorded before it shows, under consent's random id of the person. What is done is recorded by
consent, which does it.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from aiohttp import hdrs, web

from libs.common.http import plain_form
from services.console.gateway import ACT_SECONDS, LOOK_SECONDS, Answer, Gateway, items, part
from services.console.pages.door import Door
from services.console.pages.page import HEADERS, page
from services.console.record import Looks
from services.console.rules import Role
from services.console.store.sessions import Visitor

LONGEST = 254
ORDER_SECONDS = 27.0
"""consent may wait 25 s for a message that is just leaving, and then says so."""
AFTER_SECONDS = 2.0
"""For what the page shows then: the gateway waits 30 s for it."""
UNKNOWN = "unknown"
"""What is recorded of a look for somebody whom consent does not know."""


ORDERS: Mapping[str, tuple[str, Mapping[str, Any], str, str]] = {
    "erase": ("/api/consent/erase", {}, "erasing", "in_flight"),
    "withdraw": ("/api/unsubscribe", {}, "withdrawn", "leaving"),
    "object": ("/api/unsubscribe", {"objection": True}, "objected", "leaving"),
    "restrict": ("/api/consent/restrict", {}, "restricted", ""),
    "lift": ("/api/consent/restrict", {"lifted": True}, "lifted", ""),
    "dismiss": ("/api/consent/erasures/dismiss", {}, "dismissed", ""),
    "correct": ("/api/leads/correct", {}, "corrected", ""),
}
"""What is called, and what the page then says, also amid a mail: after `person_` in texts.toml."""
_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RIGHT = ("name", "new_email", "new_phone")


class PersonRoutes:
    def __init__(self, door: Door, gateway: Gateway, looks: Looks) -> None:
        self._door = door
        self._gateway = gateway
        self._looks = looks

    def add_to(self, app: web.Application) -> None:
        for method, path, handler, fresh in (
            ("GET", "/console/person", self.ask, False),
            ("POST", "/console/person", self.look, False),
            ("POST", "/console/person/export", self.export, True),
            ("POST", "/console/person/erase", self.erase, True),
        ):
            self._door.add(app, method, path, handler, Role.PRIVACY, fresh=fresh)
        for order in ORDERS.keys() - {"erase"}:
            acts = partial(self._order, order=order)
            self._door.add(app, "POST", f"/console/person/{order}", acts, Role.PRIVACY)

    async def ask(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Also list who asks for an erasure and has not confirmed it: a person must answer them."""
        found = await self._gateway.get(visitor, "/api/consent/erasures/awaiting")
        refs = (one["subject"] for one in items(found))
        await self._looks.record(visitor, "person.look", "person", refs)
        return self._page(request, visitor, awaiting=items(found), fault=found.fault)

    async def look(self, request: web.Request, visitor: Visitor) -> web.Response:
        who = _typed(await plain_form.read(request), "who")
        return await self._look(request, visitor, who)

    async def _look(
        self, request: web.Request, visitor: Visitor, who: str, *, fault: str | None = None,
        status: int = 200,
    ) -> web.Response:  # fmt: skip
        trail = await self._trail(visitor, who)
        if not trail.ok:
            return self._refused(request, visitor, who, trail)
        consents = await self._consents(visitor, who)
        await self._looks.record(visitor, "person.look", "person", [_ref(trail)])
        return self._page(
            request, visitor, who=who, fault=fault, status=status, trail=trail.body,
            consents=consents,
        )  # fmt: skip

    async def export(self, request: web.Request, visitor: Visitor) -> web.Response:
        who = _typed(await plain_form.read(request), "who")
        if not who:
            return self._refused(request, visitor, who, Answer(422))
        path = f"/api/consent/export/{part(who)}"
        found = await self._gateway.get_within(visitor, path, ACT_SECONDS)  # of all services
        trail = await self._trail(visitor, who)
        if not (found.ok and trail.ok):
            return self._refused(request, visitor, who, trail if found.ok else found)
        services = found.body["services"]
        refs = {*_ID.findall(json.dumps(services)), str(trail.body["subject"])}
        services["console"] = {"acts": await self._looks.of(refs)}
        name = "person-incomplete.json" if found.body["incomplete"] else "person.json"
        return web.Response(
            text=json.dumps(found.body, ensure_ascii=False, indent=2),
            content_type="application/json",
            headers={**HEADERS, hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}"'},
        )

    async def erase(self, request: web.Request, visitor: Visitor) -> web.Response:
        form = await plain_form.read(request)
        who, again = _typed(form, "who"), _typed(form, "again")
        if who.casefold() != again.casefold():
            return await self._look(request, visitor, who, fault="not_same", status=422)
        return await self._order(request, visitor, "erase")

    async def _order(self, request: web.Request, visitor: Visitor, order: str) -> web.Response:
        """Do what they ask for: they called, or wrote."""
        form, (path, more, done, in_flight) = await plain_form.read(request), ORDERS[order]
        who = _typed(form, "who")
        right = {name: text for name in RIGHT if (text := _typed(form, name))}
        trail = await self._trail(visitor, who)
        if not trail.ok:
            return self._refused(request, visitor, who, trail)
        # The look is what the page shows afterwards: then nothing may hide that it was ordered.
        await self._looks.record(visitor, "person.look", "person", [_ref(trail)])
        body = {"email" if "@" in who else "phone": who, **more, **right}
        answer = await self._gateway.post(visitor, path, body, seconds=ORDER_SECONDS)
        if not answer.ok:
            return self._refused(request, visitor, who, answer)
        trail, consents = await asyncio.gather(
            self._trail(visitor, who, AFTER_SECONDS), self._consents(visitor, who, AFTER_SECONDS)
        )
        shown = trail.body if trail.ok else None
        said = in_flight if answer.status == 202 else done
        if answer.body.get("incomplete"):
            said = "incomplete"
        return self._page(request, visitor, who=who, said=said, trail=shown, consents=consents)

    async def _trail(self, visitor: Visitor, who: str, seconds: float = LOOK_SECONDS) -> Answer:
        if not who:
            return Answer(422)
        path = f"/api/consent/audit/{part(who)}"
        return await self._gateway.get_within(visitor, path, seconds)

    async def _consents(
        self, visitor: Visitor, who: str, seconds: float = LOOK_SECONDS
    ) -> dict[str, Any] | None:
        """Return how each consent stands; None: it is not known now, or they gave no e-mail."""
        if "@" not in who:
            return None
        path = f"/api/unsubscribe/status/{part(who)}"
        found = await self._gateway.get_within(visitor, path, seconds)
        return found.body["purposes"] if found.ok else None

    def _refused(
        self, request: web.Request, visitor: Visitor, who: str, answer: Answer
    ) -> web.Response:
        fault = "bad_subject" if answer.status == 422 else answer.fault
        return self._page(request, visitor, who=who, fault=fault, status=answer.page_status)

    def _page(self, request: web.Request, visitor: Visitor, **values: Any) -> web.Response:
        shown: dict[str, Any] = {"who": "", "trail": None, "consents": None, "said": None}
        shown["awaiting"] = ()
        return page(request, "person.html", "person", visitor, **shown | values)


def _typed(form: Any, name: str) -> str:
    return str(form.get(name, "")).strip()[:LONGEST]


def _ref(trail: Answer) -> str:
    return trail.body["subject"] or UNKNOWN
