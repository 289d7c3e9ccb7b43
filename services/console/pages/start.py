"""The first page: what needs a person now. It asks only for what the gateway allows the person."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any
from uuid import uuid4

from aiohttp import web

from libs.domain.acts import Actor
from services.console.gateway import Answer, items, items_in
from services.console.pages.base import Page, Site
from services.console.pages.door import REFRESH
from services.console.pages.page import page, reachable
from services.console.people.notices import sentence
from services.console.rules import ON_CALL, OPS, PRIVACY, SALES, Role, may
from services.console.samples import Chart
from services.console.store import people
from services.console.store.sessions import Visitor
from services.console.store.sql import run
from services.console.texts import moment

CARDS = 5
"""Leads on the page, of those that wait and of one's own."""
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
    key: str = ""
    """Its name in the template, if it is more than rows."""


def _no_rows(_: Any) -> Rows:
    yield from ()


def _topics(body: Any) -> Rows:
    for topic, count in body["topics"].items():
        yield f"topic:{topic}", count, f"{_LEADS}?state=new&topic={topic}"


def _listed(name: str, link: str) -> Callable[[Any], Rows]:
    def rows(body: Any) -> Rows:
        count, more = len(body["items"]), body.get("next_cursor", body.get("next"))
        yield name, f"{count}+" if more else count, link

    return rows


def _deliveries(body: Any) -> Rows:
    yield "failed", body["failed"], _FAILED
    yield "in_doubt", body["in_doubt"], "/console/alerts?state=in_doubt"


def _breakers(body: Any) -> Rows:
    # A subscription's owner is told.
    halted = sum(each["state"] != "closed" and not each.get("title") for each in body.values())
    yield "breakers", halted, "/console/targets"


def _ledger(body: Any) -> Rows:
    yield "ledger", int(body["ok"] is False), None  # no page here explains it
    if (unsent := body.get("escalation_unsent_seconds", 0)) > UNSENT_SECONDS:
        yield "escalations", int(unsent) // 60, f"{_FAILED}&event_type=escalation"


def _erasures(body: Any) -> Rows:
    yield "erasures", body["in_progress"], "/console/person"
    yield "awaiting", body["awaiting"], "/console/person"


_LEADS, _SUSPECTED = "/console/leads", "/console/leads/suspected"
_SOME = {"limit": 100}
_NEW: Mapping[str, str | int] = {
    "state": "new", "topic": "lead", "order": "oldest", "limit": CARDS,
}  # fmt: skip
_MINE: Mapping[str, str | int] = {"state": "taken", "limit": CARDS}
_UNANSWERED = {"state": "unanswered", "leads": "true"}
_CASES, _ALL_ASKED = "/console/cases", "/console/cases?state=unanswered"
_OPEN, _OVER = ({"state": state, "leads": "false"} for state in ("open", "unanswered"))
PARTS = (
    Part("leads", "/api/leads/stats", _topics, {}, SALES, "stats"),
    Part("leads", "/api/leads", _no_rows, _NEW, SALES, "waiting"),
    Part("leads", "/api/leads", _no_rows, _MINE, SALES, "mine"),
    Part("leads", "/api/leads/suspected", _listed("suspected", _SUSPECTED), _SOME, SALES),
    Part("cases", "/api/cases", _listed("cases_unanswered", _ALL_ASKED), _OVER, OPS),
    Part("cases", "/api/cases", _listed("cases_open", _CASES), _OPEN, OPS),
    Part("cases", "/api/cases", _listed("unanswered", _LEADS), _UNANSWERED, (Role.SALES, Role.OPS)),
    Part("erasures", "/api/consent/erasures", _erasures, {}, PRIVACY),
    Part("alerts", "/api/dlq/stats", _deliveries, {}, ON_CALL, "sent"),
    Part("targets", "/api/breakers", _breakers, {}, ON_CALL, "breakers"),
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
            found = await run(tx, "told", acts=[*people.TOLD], admin=admin, id=visitor.staff_id)
        told = [(moment(each.at), _told(visitor, each)) for each in found]
        got = {part.key: answer.body for part, answer in shown if part.key and answer.ok}
        leads = [*items_in(got.get("waiting")), *items_in(got.get("mine"))]
        again = REFRESH in request.headers
        await self.site.looks.record(
            visitor, "lead.look", "lead", (each["id"] for each in leads), again=again
        )
        steps = await self._steps(visitor, got) if admin else {}
        return page(
            request, "home.html", "home", visitor, told=told, live="leads cases alerts breakers",
            rows=[row for part, answer in shown for row in _rows(part, answer, visitor)],
            away=dict.fromkeys(part.name for part, answer in shown if not answer.ok),
            sells=may(visitor.roles, *SALES), stats=got.get("stats"), nonce=uuid4(),
            waiting=items_in(got.get("waiting")), mine=items_in(got.get("mine")),
            numbers=NUMBERS if "stats" in got else (), chart=Chart, steps=steps,
        )  # fmt: skip

    async def _steps(self, visitor: Visitor, got: Mapping[str, Any]) -> Mapping[str, bool]:
        """Return the steps of an installation, and whether each is done; nothing once all are."""
        oncall, newest = await asyncio.gather(
            self.site.gateway.get(visitor, "/api/oncall"),
            self.site.gateway.get(visitor, "/api/leads", limit=CARDS * CARDS),
        )
        schedules = (oncall.body or {}).get("schedules", {}) if oncall.ok else {}
        sent = got.get("sent", {}).get("targets", {})
        leads = items(newest)
        done = {**self.site.set_up}
        if "sent" in got:  # what their roles may not see is not theirs to do
            done["slack"] = bool(sent.get("slack", {}).get("delivered"))
            done["mail"] = bool(sent.get("email", {}).get("delivered"))
        if oncall.ok:
            done["oncall"] = any(each["rule"] != "otherwise" for each in schedules.values())
        if newest.ok:
            done |= {"form": any(each.get("form") for each in leads), "lead": bool(leads)}
        return {} if all(done.values()) else done

    async def _ask(self, request: web.Request, visitor: Visitor, part: Part) -> Answer:
        if part.name != "ledger":
            mine = {"owner": visitor.name} if part.key == "mine" else {}
            return await self.site.gateway.get(visitor, part.path, **{**part.query, **mine})
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


NUMBERS: Mapping[str, Callable[[Mapping[str, Any]], int | None]] = {
    "leads": itemgetter("leads"),
    "answer": itemgetter("median_answer_seconds"),
    "hour": lambda counts: 100 * counts["within_hour"] // counts["due"] if counts["due"] else None,
    "won": itemgetter("won"),
    "lost": itemgetter("lost"),
}
"""How a week or a day went, by its counts."""
