"""The pages that list something, as a table: the gateway's call of each, and its acts.

The columns of each are in its template, which extends list.html.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from aiohttp import web

from services.console.gateway import LOOK_SECONDS, Answer, items
from services.console.pages.base import Act, Call, Page, Site
from services.console.pages.door import REFRESH
from services.console.pages.leads import colleagues, many
from services.console.pages.page import page
from services.console.rules import ON_CALL, OPS, SALES, RefusedError, Role, may
from services.console.samples import PERIODS, begins, charts
from services.console.store import samples
from services.console.store.sessions import Visitor
from services.console.texts import ZONE

More = Callable[[Site, Visitor, web.Request], Awaitable[Mapping[str, Any]]]
About = Callable[[Site, Visitor, list[Mapping[str, Any]]], Awaitable[list[Mapping[str, Any]]]]
SILENT_HOURS = (1, 4, 8, 24, 72, 336)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
REPLAY_HOURS = (1, 4, 8, 24)
WEEKLY = timedelta(days=365)
ON_CALL_HOURS = (4, 8, 24, 72, 168, 336)
CHANGEABLE = ("chat", "minute", "hour", "chat_budget", "write_budget", "withdrawal_budget")
SEVERITIES = ("info", "warning", "critical")
STOP_REASONS = ("staff", "reply", "bounce")
CARDS = 12
"""Of a state, where states are columns."""
MOST_ASKED = 50
"""Of addresses, in one question to consent."""
MAY_MAIL = {
    "granted": "given", "waiting": "waiting", "withdrawn": "refused", "unknown": "unknown",
}  # fmt: skip
CHART_TIMES = {"hour": "%d.%m %H:%M", "day": "%d.%m"}


@dataclass(frozen=True, kw_only=True)
class Listing:
    name: str
    """The name of its title in texts.toml, and of its template."""
    path: str = ""
    """Its path; else /console/<name>."""
    api: str = ""
    """The gateway's call; empty: `more` gives all."""
    roles: tuple[Role, ...]
    acting: tuple[Role, ...] = ()
    acts: Mapping[str, Act] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    """Its tabs; the first one is shown if none is chosen."""
    columns: tuple[str, ...] = ()
    """States that are shown beside each other instead."""
    filters: Mapping[str, str] = field(default_factory=dict)
    """What else the page's address and the call may say, and what counts if it says nothing."""
    state: str = "state"
    """What the API calls a state,"""
    cursor: str = "cursor"
    """and a page."""
    query: Mapping[str, str | int] = field(default_factory=dict)
    look: tuple[str, str, str] | None = None
    """The act to record for each look, the kind of object, and the column of its id."""
    live: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    more: More | None = None
    """Returns the template's values beside the list."""
    about: About | None = None
    """Adds to the items what another service knows."""
    fresh: bool = False


class ListPage(Page):
    def __init__(self, site: Site, of: Listing) -> None:
        super().__init__(site)
        self.of, self.path = of, of.path or f"/console/{of.name}"
        self.roles, self.acting = of.roles, of.acting

    def acts(self) -> Mapping[str, Act]:
        return self.of.acts

    def guard(self, _: str | None) -> Mapping[str, bool]:
        return {"fresh": self.of.fresh}

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        of, asked = self.of, request.query
        state = asked.get("state", "" if of.columns else next(iter(of.states), ""))
        if of.states and state not in of.states and (state or not of.columns):
            raise web.HTTPNotFound
        given = {name: asked.get(name) or usual for name, usual in of.filters.items()}
        chosen = {name: text for name, text in given.items() if text}
        # Links of earlier releases say `after`.
        query: dict[str, Any] = {**of.query, of.cursor: asked.get("cursor", asked.get("after"))}
        query |= chosen | ({of.state: state} if of.states else {})
        found, more = await asyncio.gather(
            self._asked(visitor, query, () if state else of.columns),
            of.more(self.site, visitor, request) if of.more else _none(),
        )
        if of.look is not None:
            action, kind, column = of.look
            seen = dict.fromkeys(one[column] for one in items(found))
            again = REFRESH in request.headers
            await self.site.looks.record(visitor, action, kind, seen, again=again)
        shown_items = items(found)
        if of.about is not None:
            shown_items = await of.about(self.site, visitor, shown_items)
        body = (found.body or {}) if found.ok else {}
        cursor = body.get("next_cursor", body.get("next"))
        shown: dict[str, Any] = {
            "name": of.name, "items": shown_items, "body": body, "path": self.path, "state": state,
            "states": of.states, "fault": found.fault, "status": found.page_status,
            "acts": may(visitor.roles, *of.acting),
            "more": cursor and urlencode({"state": state, **chosen, "cursor": cursor}),
            "chosen": given, "nonce": uuid4(), "done": None, **of.values, **more,
        }  # fmt: skip
        return page(request, f"{of.name}.html", of.name, visitor, live=of.live, **shown | said)

    async def _asked(
        self, visitor: Visitor, query: Mapping[str, Any], columns: tuple[str, ...]
    ) -> Answer:
        if not self.of.api:
            return Answer(200)
        of = [{self.of.state: each, "limit": CARDS} for each in columns] or [{}]
        queries: list[dict[str, Any]] = [{**query, **each} for each in of]
        ask = partial(self.site.gateway.get_within, visitor, self.of.api, LOOK_SECONDS)
        found = await asyncio.gather(*map(ask, queries))
        if not columns or not all(each.ok for each in found):
            return next((each for each in found if not each.ok), found[0])
        return Answer(200, {"items": [one for each in found for one in items(each)]})


async def _none() -> Mapping[str, Any]:
    return {}


def asks(method: str, path: str) -> Act:
    """Return the act that calls this path of the gateway with the name in the form's path."""

    async def act(call: Call) -> None:
        await call.ask(method, path.format(call.name))

    return act


def _covered(form: Mapping[str, Any]) -> dict[str, Any]:
    lines = str(form.get("matchers", "")).splitlines()
    return {"matchers": [line for line in lines if line.strip()], "critical": "critical" in form}


async def silence(call: Call) -> None:
    body = _covered(call.form) | {"why": call.reason()}
    if days := call.form.getall("day", []):
        begins, ends = call.text("begins"), call.text("ends")
        body["weekly"] = {"days": days, "begins": begins, "ends": ends, "zone": str(ZONE)}
        body["ends"] = (datetime.now(UTC) + WEEKLY).isoformat()
    else:
        body["ends"] = _ends(call, SILENT_HOURS, timedelta(seconds=-1))  # 14 days at most
    answer = await call.site.gateway.post(call.visitor, "/api/silences", body)
    if answer.fault is not None:
        bad = _errors(answer)
        raise RefusedError(answer.fault, answer.page_status, given=call.form, bad=bad)


def _errors(answer: Answer) -> list[str]:
    """Return what is wrong where, as the API says it."""
    errors = items(Answer(200, answer.body), "errors")
    return [f"{each['field']}: {each['message']}" for each in errors]


async def preview(site: Site, visitor: Visitor, request: web.Request) -> Mapping[str, Any]:
    """Return the open alerts that a silence would fit, if the form asks for them."""
    if "matchers" not in request.query:
        return {}
    body = _covered(request.query)
    found = await site.gateway.post(visitor, "/api/silences/preview", body)
    said = {"given": request.query, "bad": _errors(found)}
    if found.ok:
        return said | {"preview": found.body}
    return said | {"fault": found.fault, "status": found.page_status}


async def watch(call: Call) -> None:
    """Make a heartbeat: each so often, or by a cron line, which has spaces."""
    when = call.text("when")
    cron = {"cron": when, "timezone": call.text("timezone") or None}
    body = {
        "name": call.text("name"),
        **(cron if " " in when else {"every": when}),
        "grace": call.text("grace"),
        "severity": call.chosen("severity", SEVERITIES),
    }
    await call.ask("POST", "/api/heartbeats", body, not_accepted="bad_heartbeat")


async def pause(call: Call) -> None:
    body = {"paused": call.chosen("paused", ("yes", "no")) == "yes"}
    await call.ask("PATCH", f"/api/heartbeats/{call.name}", body)


async def stand_in(call: Call) -> None:
    """From now for some hours, or on the day of the week that was tapped."""
    schedule, _, person = str(call.form.get("who", "")).partition(" ")
    body = {"schedule": schedule, "person": person}
    if call.text("day"):
        body |= {"begins": call.time("begins"), "ends": call.time("ends"), "why": call.text("day")}
    else:
        body |= {"ends": _ends(call, ON_CALL_HOURS), "why": call.reason()}
    named = {"changed_meanwhile": "stands_in_already"}
    await call.ask("POST", "/api/oncall/overrides", body, **named)


async def swap(call: Call) -> None:
    shifts = [call.text("one"), call.text("other")]
    body = {"schedule": call.text("schedule"), "shifts": shifts, "why": call.reason()}
    named = {"changed_meanwhile": "stands_in_already"}
    await call.ask("POST", "/api/oncall/swaps", body, **named)


def _ends(call: Call, among: tuple[int, ...], less: timedelta = timedelta()) -> str:
    if (hours := call.text("hours")) not in map(str, among):
        raise RefusedError("bad_reason", 422)
    return (datetime.now(UTC) + timedelta(hours=int(hours)) + less).isoformat()


async def change_limit(call: Call) -> None:
    """Without a text, undo the earlier change."""
    if call.name not in CHANGEABLE:
        raise web.HTTPNotFound
    body = {call.name: call.text("limit") or None}
    await call.ask("PUT", "/api/ratelimits", body, not_accepted="bad_limit")


async def stop_follow_ups(call: Call) -> None:
    reason = call.chosen("reason", STOP_REASONS)
    body = {"conversation_id": str(call.id("conversation")), "reason": reason}
    await call.ask("POST", "/api/followups/stop", body)


async def decide(call: Call) -> None:
    verb = call.chosen("answer", ("release", "discard"))
    await call.ask("POST", f"/api/leads/suspected/{call.name}/{verb}")


def _replayed(form: Mapping[str, Any]) -> dict[str, Any]:
    if (hours := str(form.get("hours"))) not in map(str, REPLAY_HOURS):
        raise web.HTTPBadRequest
    now = datetime.now(UTC)
    since = (now - timedelta(hours=int(hours))).isoformat()
    return {"target": form.get("target"), "since": since, "until": now.isoformat()}


async def replay(call: Call) -> Mapping[str, Any]:
    dry_run = call.text("act") != "send"
    body = _replayed(call.form) | {"dry_run": dry_run}
    done = await call.ask("POST", "/api/alerts/replay", body)
    return {"replay": done.body, "given": call.form}


async def with_consents(
    site: Site, visitor: Visitor, leads: list[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the leads with how consent says now that theirs stands: one question for a page."""
    emails = list(dict.fromkeys(one["email"] for one in leads if one["email"]))[:MOST_ASKED]
    body = {"subjects": emails}
    ask = partial(site.gateway.ask, "POST", visitor, "/api/unsubscribe/status", body)
    found = items(await ask(seconds=LOOK_SECONDS)) if emails else ()
    marketing = {each["subject"]: each["purposes"].get("marketing", {}) for each in found}
    unknown = {"email": {"state": "unknown"}}
    told = {
        email: MAY_MAIL.get(marketing.get(email, unknown).get("email", {}).get("state"))
        for email in emails
    }
    return [{**one, "may_mail": told.get(one["email"])} for one in leads]


async def counted(site: Site, visitor: Visitor, _: web.Request) -> Mapping[str, Any]:
    """Return how many leads wait, and what else the service counts."""
    found = await site.gateway.get(visitor, "/api/leads/stats")
    return {"stats": found.body if found.ok else {}, "colleagues": await colleagues(site)}


async def backlog(site: Site, visitor: Visitor, request: web.Request) -> Mapping[str, Any]:
    """Return what waits for each target and in its queue, and charts of the last day, or of 14."""
    unit, count = PERIODS.get(request.query.get("days", ""), PERIODS["1"])
    times = begins(unit, count, datetime.now(UTC), ZONE)
    async with site.engine.connect() as tx:
        sampled = await samples.by_time(tx, unit, str(ZONE), times[0])
    counted, health, mail = await asyncio.gather(
        site.gateway.get(visitor, "/api/dlq/stats"),
        site.gateway.get(visitor, "/api/health/deep"),
        site.gateway.get(visitor, "/api/mail/rates"),
    )
    return {
        "counts": counted.body["targets"] if counted.ok else {},
        "away": counted.fault,
        # 503 says that something is unhealthy, and still has the queues.
        "depths": (health.body or {}).get("queues", {}),
        "queues_url": site.queues_url,
        "mail": mail.body if mail.ok else None,
        "charts": charts(sampled, times),
        "unit": unit,
        "periods": PERIODS,
        "times": [f"{at.astimezone(ZONE):{CHART_TIMES[unit]}}" for at in times],
    }


SUSPECTED = Listing(
    name="suspected", path="/console/leads/suspected", api="/api/leads/suspected", roles=SALES,
    acting=SALES, acts={"/{id}": decide}, query={"limit": 25},
    look=("lead.look", "submission", "id"),
)  # fmt: skip
LISTS = (
    Listing(
        name="leads", api="/api/leads", roles=SALES, acting=SALES, query={"limit": 50},
        live="leads", states=("new", "taken", "won", "lost", "not_a_lead"),
        columns=("new", "taken", "won", "lost"), look=("lead.look", "lead", "id"), more=counted,
        about=with_consents,
        filters={"topic": "lead", "owner": "", "order": "", "q": ""}, acts={"": many},
    ),
    SUSPECTED,
    # Those of programs: cases of leads are on the leads' pages.
    Listing(
        name="cases", api="/api/cases", roles=OPS, states=("open", "unanswered", "answered"),
        cursor="after", query={"leads": "false", "closed": "false"}, live="cases",
    ),
    Listing(
        name="silences", api="/api/silences", roles=ON_CALL, acting=OPS,
        acts={"": silence, "/{id}/end": asks("DELETE", "/api/silences/{}")},
        values={"hours": SILENT_HOURS, "days": DAYS, "given": {}, "bad": ()}, more=preview,
    ),
    Listing(
        name="heartbeats", api="/api/heartbeats", roles=OPS, acting=OPS,
        acts={
            "": watch, "/{id}/pause": pause,
            "/{id}/rotate": asks("POST", "/api/heartbeats/{}/rotate"),
            "/{id}/delete": asks("DELETE", "/api/heartbeats/{}"),
        },
        values={"severities": SEVERITIES, "zone": str(ZONE)},
    ),
    Listing(
        name="oncall", api="/api/oncall", roles=ON_CALL, acting=OPS,
        values={"hours": ON_CALL_HOURS},
        acts={
            "": stand_in, "/swap": swap,
            "/{id}/remove": asks("DELETE", "/api/oncall/overrides/{}"),
        },
    ),
    Listing(
        name="limits", api="/api/ratelimits", roles=ON_CALL, acting=OPS,
        acts={"/{name}": change_limit},
        values={
            "changeable": CHANGEABLE, "others": ("service", "slack", "health", "console", "login"),
        },
    ),
    # A conversation is one person; its id stays after their steps have ended.
    Listing(
        name="followups", api="/api/followups", roles=SALES, acting=SALES, state="status",
        states=("scheduled", "handed_over", "in_doubt"), values={"reasons": STOP_REASONS},
        look=("followups.look", "conversation", "conversation_id"),
        acts={
            "/{id}/cancel": asks("DELETE", "/api/followups/{}"), "/{id}/stop": stop_follow_ups,
        },
    ),
    Listing(
        name="undeliverable", api="/api/mail/undeliverable", roles=SALES, acting=SALES,
        look=("mail.look", "conversation", "conversation_id"),
        acts={"/{id}/retry": asks("POST", "/api/mail/undeliverable/{}/retry")},
    ),
    Listing(
        name="targets", api="/api/breakers", roles=ON_CALL, acting=OPS, live="alerts breakers",
        more=backlog,
        acts={"/replay": replay, "/{target}/reset": asks("POST", "/api/breakers/{}/reset")},
        values={"replay_hours": REPLAY_HOURS, "replay": None, "given": {}},
    ),
)  # fmt: skip
