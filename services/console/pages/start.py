"""The first page: what needs a person now. It asks only for what the gateway allows the person."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from libs.domain.acts import Actor
from services.console.gateway import Answer
from services.console.pages.base import Page, Site
from services.console.pages.door import REFRESH
from services.console.pages.page import page, reachable
from services.console.people.notices import sentence
from services.console.rules import ON_CALL, OPS, PRIVACY, SALES, Role, may
from services.console.store import people
from services.console.store.sessions import Visitor
from services.console.texts import moment

MOST = 100
"""Lists are counted up to here; more than that is "100+"."""

LEDGER_SECONDS = 60.0
UNSENT_SECONDS = 1800
"""The same as in the rule EscalationUnsent."""

Rows = Iterator[tuple[str, int | str, str | None]]
"""What needs a person, as a key of texts.toml after `inbox_`, how many, and the page for it."""


_FAILED = "/console/alerts?state=failed"


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    path: str
    rows: Callable[[Any], Rows]
    query: Mapping[str, str | int]
    roles: tuple[Role, ...]
    """Who may see it. The gateway refuses others, and a refusal counts as a request."""


def _listed(name: str, link: str) -> Callable[[Any], Rows]:
    def rows(body: Any) -> Rows:
        count, more = len(body["items"]), body.get("next_cursor", body.get("next"))
        yield name, f"{count}+" if more else count, link

    return rows


def _deliveries(body: Any) -> Rows:
    yield "failed", body["failed"], _FAILED
    yield "in_doubt", body["in_doubt"], "/console/alerts?state=in_doubt"


def _breakers(body: Any) -> Rows:
    halted = sum(each["state"] != "closed" for each in body.values())
    yield "breakers", halted, "/console/targets"


def _ledger(body: Any) -> Rows:
    yield "ledger", int(body["ok"] is False), None  # no page here explains it
    if (unsent := body.get("escalation_unsent_seconds", 0)) > UNSENT_SECONDS:
        yield "escalations", int(unsent) // 60, f"{_FAILED}&event_type=escalation"


def _erasures(body: Any) -> Rows:
    yield "erasures", body["in_progress"], "/console/person"
    yield "awaiting", body["awaiting"], "/console/person"


_LEADS, _SUSPECTED = "/console/leads", "/console/leads/suspected"
_SOME = {"limit": MOST}
_NEW, _UNANSWERED = {"state": "new"} | _SOME, {"state": "unanswered", "leads": "true"}
_CASES, _ALL_ASKED = "/console/cases", "/console/cases?state=unanswered"
_OPEN, _OVER = ({"state": state, "leads": "false"} for state in ("open", "unanswered"))
PARTS = (
    Part("leads", "/api/leads", _listed("leads", _LEADS), _NEW, SALES),
    Part("leads", "/api/leads/suspected", _listed("suspected", _SUSPECTED), _SOME, SALES),
    Part("cases", "/api/cases", _listed("cases_unanswered", _ALL_ASKED), _OVER, OPS),
    Part("cases", "/api/cases", _listed("cases_open", _CASES), _OPEN, OPS),
    Part("cases", "/api/cases", _listed("unanswered", _LEADS), _UNANSWERED, (Role.SALES, Role.OPS)),
    Part("erasures", "/api/consent/erasures", _erasures, {}, PRIVACY),
    Part("alerts", "/api/dlq/stats", _deliveries, {}, ON_CALL),
    Part("targets", "/api/breakers", _breakers, {}, ON_CALL),
    Part("ledger", "/api/ledger/check", _ledger, {}, ON_CALL),
)


class StartPage(Page):
    path, roles = "/console/", ()

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._checked = Answer(0)
        self._checked_at = float("-inf")

    async def show(self, request: web.Request, visitor: Visitor, **_: Any) -> web.Response:
        parts = [part for part in PARTS if may(visitor.roles, *part.roles)]
        asked = (self._ask(request, visitor, part) for part in parts)
        shown = list(zip(parts, await asyncio.gather(*asked), strict=True))
        admin = Role.ADMIN in visitor.roles
        async with self.site.engine.connect() as tx:
            found = await people.told(tx, visitor.staff_id, admin=admin)
        told = [(moment(each.at), _told(visitor, each)) for each in found]
        return page(
            request, "home.html", "home", visitor, told=told, live="leads cases alerts breakers",
            waiting=[row for part, answer in shown for row in _rows(part, answer, visitor)],
            away=dict.fromkeys(part.name for part, answer in shown if not answer.ok),
        )  # fmt: skip

    async def _ask(self, request: web.Request, visitor: Visitor, part: Part) -> Answer:
        if part.name != "ledger":
            return await self.site.gateway.get(visitor, part.path, **part.query)
        # The check reads every row: not with each refresh of each page that is open somewhere.
        if REFRESH not in request.headers or time.monotonic() - self._checked_at > LEDGER_SECONDS:
            found = await self.site.gateway.get(visitor, part.path)
            if not found.ok:
                return found
            self._checked, self._checked_at = found, time.monotonic()
        return self._checked


def _told(visitor: Visitor, act: Any) -> str:
    actor = Actor(act.actor_kind, act.actor_id, act.actor_name)
    return sentence(visitor.language, act.action, actor, act.whom, act.reason or "")


def _rows(part: Part, answer: Answer, visitor: Visitor) -> Rows:
    """Return what needs a person, with a link if they may open its page."""
    for name, count, link in part.rows(answer.body) if answer.ok else ():
        if count:
            yield name, count, link if link and reachable(visitor, link) else None
