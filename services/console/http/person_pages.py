"""What Ostoja holds of a person who asks (GDPR, Art. 15, 17, 20): look, export, erase.

An address is in no URL, so a look is a form and its answer is the page itself. Each of these is
recorded before it happens, under consent's random id of the person.
"""

import json
from typing import Any

from aiohttp import hdrs, web

from services.console.gateway import Answer, Gateway, part
from services.console.http.door import Door
from services.console.http.looks import Looks
from services.console.http.pages import HEADERS, page
from services.console.person import Role
from services.console.store.sessions import Visitor

LONGEST = 254
UNKNOWN = "unknown"
"""What is recorded of a look for somebody whom consent does not know."""


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
            entered = self._door.only(handler, Role.PRIVACY, fresh=fresh)
            app.router.add_route(method, path, entered)

    async def ask(self, request: web.Request, visitor: Visitor) -> web.Response:
        return self._page(request, visitor)

    async def look(self, request: web.Request, visitor: Visitor) -> web.Response:
        who = _typed(await request.post(), "who")
        return await self._look(request, visitor, who)

    async def _look(
        self, request: web.Request, visitor: Visitor, who: str, *, fault: str | None = None,
        status: int = 200, said: str | None = None,
    ) -> web.Response:  # fmt: skip
        trail = await self._trail(visitor, who)
        if not trail.ok:
            return self._refused(request, visitor, who, trail)
        consents = await self._consents(visitor, who)
        await self._looks.record(visitor, "person.look", "person", [_ref(trail)])
        return self._page(
            request, visitor, who=who, fault=fault, status=status, said=said, trail=trail.body,
            consents=consents,
        )  # fmt: skip

    async def export(self, request: web.Request, visitor: Visitor) -> web.Response:
        who = _typed(await request.post(), "who")
        trail = await self._trail(visitor, who)
        if not trail.ok:
            return self._refused(request, visitor, who, trail)
        await self._looks.record(visitor, "person.export", "person", [_ref(trail)])
        found = await self._gateway.get_from_all(visitor, f"/api/consent/export/{part(who)}")
        if not found.ok:
            return self._refused(request, visitor, who, found)
        name = "person-incomplete.json" if found.body["incomplete"] else "person.json"
        return web.Response(
            text=json.dumps(found.body, ensure_ascii=False, indent=2),
            content_type="application/json",
            headers={**HEADERS, hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}"'},
        )

    async def erase(self, request: web.Request, visitor: Visitor) -> web.Response:
        form = await request.post()
        who, again = _typed(form, "who"), _typed(form, "again")
        if who.casefold() != again.casefold():
            return await self._look(request, visitor, who, fault="not_same", status=422)
        trail = await self._trail(visitor, who)
        if not trail.ok:
            return self._refused(request, visitor, who, trail)
        refs = [_ref(trail)]
        await self._looks.record(visitor, "person.erase", "person", refs, outcome="intended")
        body = {"email" if "@" in who else "phone": who}
        done = await self._gateway.post(visitor, "/api/consent/erase", body)
        if not done.ok:
            return self._refused(request, visitor, who, done)
        said = "in_flight" if done.status == 202 else "erasing"
        return await self._look(request, visitor, who, said=said)

    async def _trail(self, visitor: Visitor, who: str) -> Answer:
        if not who:
            return Answer(422)
        return await self._gateway.get(visitor, f"/api/consent/audit/{part(who)}")

    async def _consents(self, visitor: Visitor, who: str) -> dict[str, bool] | None:
        """Return what they agree to now; None: it is not known now, or they gave no e-mail."""
        if "@" not in who:
            return None
        found = await self._gateway.get(visitor, f"/api/unsubscribe/status/{part(who)}")
        return found.body["consents"] if found.ok else None

    def _refused(
        self, request: web.Request, visitor: Visitor, who: str, answer: Answer
    ) -> web.Response:
        fault = "bad_subject" if answer.status == 422 else answer.fault
        return self._page(request, visitor, who=who, fault=fault, status=answer.page_status)

    def _page(self, request: web.Request, visitor: Visitor, **values: Any) -> web.Response:
        shown: dict[str, Any] = {"who": "", "trail": None, "consents": None, "said": None}
        return page(request, "person.html", "person", visitor, **shown | values)


def _typed(form: Any, name: str) -> str:
    return str(form.get(name, "")).strip()[:LONGEST]


def _ref(trail: Answer) -> str:
    return trail.body["subject"] or UNKNOWN
