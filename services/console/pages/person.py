"""A person's data, for one who asks (GDPR, Art. 15, 17, 20): look, export, withdraw, erase.

An address is in no URL, so a look is a form and its answer is the page itself. Each look is
recorded before it shows, under consent's random id of the person. Consent
records what it does itself.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from aiohttp import hdrs, web

from libs.common.plain import plain
from services.console.gateway import ACT_SECONDS, LOOK_SECONDS, Answer, items, part
from services.console.messages import RefusedError
from services.console.pages.base import Act, Call, Page
from services.console.pages.page import HEADERS, page
from services.console.rules import PRIVACY
from services.console.store.sessions import Visitor

LONGEST = 254
ORDER_SECONDS = 27.0
"""consent may wait 25 s for a message that is just leaving, and then reports it."""
AFTER_SECONDS = 2.0
"""For what the page shows then: the gateway waits 30 s for it."""
UNKNOWN = "unknown"
"""The record's id for a look at somebody whom consent does not know."""


ORDERS: Mapping[str, tuple[str, Mapping[str, Any], str, str]] = {
    "erase": ("/api/consent/erase", {}, "erasing", "in_flight"),
    "withdraw": ("/api/unsubscribe", {}, "withdrawn", "leaving"),
    "object": ("/api/unsubscribe", {"objection": True}, "objected", "leaving"),
    "restrict": ("/api/consent/restrict", {}, "restricted", ""),
    "lift": ("/api/consent/restrict", {"lifted": True}, "lifted", ""),
    "dismiss": ("/api/consent/erasures/dismiss", {}, "dismissed", ""),
    "correct": ("/api/leads/correct", {}, "corrected", ""),
}
"""The call, and the page's texts when done and while a mail leaves, after `person_`."""
_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RIGHT = ("name", "new_email", "new_phone", "purpose")


class PersonPage(Page):
    path, roles, acting = "/console/person", PRIVACY, PRIVACY

    def acts(self) -> Mapping[str, Act]:
        orders = {f"/{order}": partial(self._order, order=order) for order in ORDERS}
        return {**orders, "": self._look, "/export": self._export, "/erase": self._erase}

    def guard(self, below: str | None) -> Mapping[str, bool]:
        return {"fresh": below in {"/export", "/erase"}}

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        """Also list people with an unconfirmed request for erasure: staff must answer them."""
        shown: dict[str, Any] = {"who": "", "trail": None, "consents": None, "said": None}
        shown["awaiting"] = ()
        if request.method == hdrs.METH_GET:
            found = await self.site.gateway.get(visitor, "/api/consent/erasures/awaiting")
            shown |= {"fault": found.fault, "awaiting": items(found)}
            refs = (one["subject"] for one in items(found))
            await self.site.looks.record(visitor, "person.look", "person", refs)
        return page(request, "person.html", "person", visitor, **shown | said)

    async def _look(self, call: Call) -> Mapping[str, Any]:
        who, trail = await self._named(call)
        consents = await self._consents(call.visitor, who)
        await self._looked(call, trail)
        return {"who": who, "trail": trail, "consents": consents}

    async def _export(self, call: Call) -> web.Response:
        who, trail = await self._named(call)
        path = f"/api/consent/export/{part(who)}"
        asked = self.site.gateway.get_within(call.visitor, path, ACT_SECONDS)  # of all services
        found = _accepted(await asked, who)
        services = found["services"]
        refs = {*_ID.findall(json.dumps(services)), str(trail["subject"])}
        services["console"] = {"acts": await self.site.looks.of(refs)}
        name = "person-incomplete.json" if found["incomplete"] else "person.json"
        return web.Response(
            text=json.dumps(found, ensure_ascii=False, indent=2, default=plain),
            content_type="application/json",
            headers={**HEADERS, hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}"'},
        )

    async def _erase(self, call: Call) -> Mapping[str, Any]:
        if call.text("who").casefold() != call.text("again").casefold():
            return {**await self._look(call), "fault": "not_same", "status": 422}
        return await self._order(call, "erase")

    async def _order(self, call: Call, order: str) -> Mapping[str, Any]:
        """Do what they ask for: they called, or wrote."""
        path, more, done, in_flight = ORDERS[order]
        who, trail = await self._named(call)
        # The look is what the page shows afterwards: then nothing may hide that it was ordered.
        await self._looked(call, trail)
        right = {name: text for name in RIGHT if (text := call.text(name)[:LONGEST])}
        body = {"email" if "@" in who else "phone": who, **more, **right}
        gateway, visitor = self.site.gateway, call.visitor
        answer = await gateway.ask("POST", visitor, path, body, seconds=ORDER_SECONDS)
        said = in_flight if answer.status == 202 else done
        if _accepted(answer, who).get("incomplete"):
            said = "incomplete"
        after, consents = await asyncio.gather(
            self._trail(visitor, who, AFTER_SECONDS), self._consents(visitor, who, AFTER_SECONDS)
        )
        shown = after.body if after.ok else None
        return {"who": who, "said": said, "trail": shown, "consents": consents}

    async def _named(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        """Return the person whom the form names, and their trail.

        :raises RefusedError: it is not an address, or consent is away
        """
        who = call.text("who")[:LONGEST]
        trail = await self._trail(call.visitor, who) if who else Answer(422)
        return who, _accepted(trail, who)

    async def _looked(self, call: Call, trail: Mapping[str, Any]) -> None:
        refs = [trail["subject"] or UNKNOWN]
        await self.site.looks.record(call.visitor, "person.look", "person", refs)

    async def _trail(self, visitor: Visitor, who: str, seconds: float = LOOK_SECONDS) -> Answer:
        path = f"/api/consent/audit/{part(who)}"
        return await self.site.gateway.get_within(visitor, path, seconds)

    async def _consents(
        self, visitor: Visitor, who: str, seconds: float = LOOK_SECONDS
    ) -> dict[str, Any] | None:
        """Return the state of each consent, by purpose and channel; None: unknown now."""
        path = f"/api/unsubscribe/status/{part(who)}"
        found = await self.site.gateway.get_within(visitor, path, seconds)
        return found.body["purposes"] if found.ok else None


def _accepted(answer: Answer, who: str) -> Any:
    """:raises RefusedError:"""
    if not answer.ok:
        fault = "bad_subject" if answer.status == 422 else str(answer.fault)
        raise RefusedError(fault, answer.page_status, who=who)
    return answer.body
