"""The pages that list something: lists.toml has their calls and acts, and here is what these do."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from aiohttp import web
from multidict import MultiMapping

from libs.common import beside
from services.console.gateway import LOOK_SECONDS, Answer, items, part
from services.console.messages import RefusedError, reason_in
from services.console.pages import admin
from services.console.pages.base import Act, Call, Page, Site
from services.console.pages.door import REFRESH
from services.console.pages.leads import colleagues, many
from services.console.pages.page import GROUPS, HOME, page
from services.console.rules import Role, may
from services.console.samples import PERIODS, begins, charts
from services.console.store.sessions import Visitor
from services.console.store.sql import run
from services.console.texts import ZONE

More = Callable[[Site, Visitor, web.Request], Awaitable[Mapping[str, Any]]]
About = Callable[[Site, Visitor, list[Mapping[str, Any]]], Awaitable[list[Mapping[str, Any]]]]
WEEKLY = timedelta(days=365)
SHOWN = 20
"""Deliveries."""
CARDS = 12
"""Of a state, where states are columns."""
MOST_ASKED = 50
"""Of addresses, in one question to consent."""
MAY_MAIL = {
    "granted": "given", "waiting": "waiting", "withdrawn": "refused", "unknown": "unknown",
}  # fmt: skip
FIELDS = ("event_type", "severity", "target", "source")
"""What a silence's condition may be about without a syntax of its own."""
CHART_TIMES = {"hour": "%d.%m %H:%M", "day": "%d.%m"}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A section of lists.toml, which says what each means."""

    name: str
    path: str
    roles: tuple[Role, ...]
    acts: Mapping[str, Act]
    api: str = ""
    states: Sequence[str] = ()
    columns: Sequence[str] = ()
    filters: Mapping[str, str] = field(default_factory=dict)
    state: str = "state"
    cursor: str = "cursor"
    query: Mapping[str, str | int] = field(default_factory=dict)
    look: tuple[str, str, str] | None = None
    live: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    more: More | None = None
    about: About | None = None
    fresh: bool = False


class ListPage(Page):
    def __init__(self, site: Site, of: Listing) -> None:
        super().__init__(site)
        self.of, self.path, self.roles, self.offers = of, of.path, of.roles, of.values
        self.acting = tuple(role for role in of.roles if role is not Role.VIEWER)

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
            "acts": may(visitor.roles, *self.acting),
            "more": cursor and urlencode({"state": state, **chosen, "cursor": cursor}),
            "chosen": given, "nonce": uuid4(), "done": None, **of.values, **more,
        }  # fmt: skip
        return page(request, f"{of.name}.html", of.name, visitor, live=of.live, **shown | said)

    async def _asked(
        self, visitor: Visitor, query: Mapping[str, Any], columns: Sequence[str]
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


def _conditions(form: MultiMapping[Any]) -> list[tuple[str, str, str]]:
    """Return the rows of the form that have a value: field, sign, value."""
    rows = zip(form.getall("field", ()), form.getall("op", ()), strict=False)
    texts = form.getall("value", ())
    values = {name: form.getall(name, texts) for name in FIELDS}  # of what has a list of its own
    said = ((name, op, *values.get(name, ())[n : n + 1]) for n, (name, op) in enumerate(rows))
    return [
        (name, op, value.strip()) for name, op, *found in said for value in found if value.strip()
    ]


def covered(form: MultiMapping[Any]) -> dict[str, Any]:
    # In quotes, as a sign before it would be part of the operator.
    rows = (
        name + op + (f'"{text}"' if text[0] in '~"' else text)
        for name, op, text in _conditions(form)
    )
    lines = str(form.get("matchers", "")).splitlines()
    matchers = [*rows, *(line for line in lines if line.strip())]
    return {"matchers": matchers, "critical": "critical" in form}


def _fault_of(rows: Collection[tuple[str, str, str]], body: Mapping[str, Any]) -> str | None:
    """Return the name of the text that says what the conditions lack."""
    if not body["critical"] and ("severity", "=", "critical") in rows:
        return "not_critical"
    return None if body["matchers"] else "no_matchers"


async def silence(call: Call) -> None:
    rows = _conditions(call.form)
    shown: dict[str, Any] = {"given": call.form, "rows": rows}
    body = covered(call.form) | {"why": reason_in(call.form)}
    if fault := _fault_of(rows, body) or (None if body["why"] else "bad_reason"):
        raise RefusedError(fault, 422, **shown)
    if call.text("hours") == "weekly":
        if (weekly := _weekly(call)) is None:
            raise RefusedError("bad_hours", 422, **shown)
        body |= {"weekly": weekly, "ends": (datetime.now(UTC) + WEEKLY).isoformat()}
    else:
        body["ends"] = _ends(call, timedelta(seconds=-1))  # 14 days at most
    answer = await call.site.gateway.post(call.visitor, "/api/silences", body)
    if answer.fault is not None:
        bad = _errors(answer)
        raise RefusedError(answer.fault, answer.page_status, bad=bad, **shown)


def _weekly(call: Call) -> dict[str, Any] | None:
    days, begins, ends = call.form.getall("day", []), call.text("begins"), call.text("ends")
    return {"days": days, "begins": begins, "ends": ends, "zone": str(ZONE)} if days else None


async def quiet(call: Call) -> None:
    """Set somebody's quiet hours, or one's own; without a day, those of the file count again."""
    body = {"weekly": _weekly(call), "critical": "critical" in call.form}
    person = call.text("person")
    path = f"/api/oncall/quiet/{part(person)}" if person else "/api/oncall/quiet"
    await call.ask("PUT", path, body, not_accepted="bad_hours")


def _errors(answer: Answer) -> list[str]:
    """Return what is wrong where, as the API says it."""
    errors = items(Answer(200, answer.body), "errors")
    return [f"{each['field']}: {each['message']}" for each in errors]


async def preview(site: Site, visitor: Visitor, request: web.Request) -> Mapping[str, Any]:
    """Return what conditions may name, and if the form asks, the open alerts that they fit."""
    counted = await site.gateway.get(visitor, "/api/dlq/stats")
    targets = sorted(counted.body["targets"]) if counted.ok else []
    said: dict[str, Any] = {"fields": FIELDS, "targets": targets}
    if "matchers" not in request.query:
        return said
    rows, body = _conditions(request.query), covered(request.query)
    said |= {"given": request.query, "rows": rows}
    if fault := _fault_of(rows, body):
        return said | {"fault": fault, "status": 422}
    found = await site.gateway.post(visitor, "/api/silences/preview", body)
    said |= {"bad": _errors(found)}
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
        "severity": call.chosen("severity", call.offers["severities"]),
    }
    await call.ask("POST", "/api/heartbeats", body, not_accepted="bad_heartbeat")


async def pause(call: Call) -> None:
    """Pause what the form's path names, or resume it."""
    _, kind, *_ = call.request.path.strip("/").split("/")
    body = {"paused": call.chosen("paused", ("yes", "no")) == "yes"}
    await call.ask("PATCH", f"/api/{kind}/{call.name}", body)


async def send_again(call: Call) -> None:
    """Replay what failed on the last day."""
    now = datetime.now(UTC)
    times = {"since": (now - timedelta(days=1)).isoformat(), "until": now.isoformat()}
    body = times | {"only_failed": True}
    await call.ask("POST", f"/api/subscriptions/{call.name}/replay", body)


async def deliveries(site: Site, visitor: Visitor, request: web.Request) -> Mapping[str, Any]:
    """Return the last deliveries of the subscription that the page's address names."""
    if (of := request.query.get("of")) is None:
        return {}
    found = await site.gateway.get(visitor, f"/api/subscriptions/{part(of)}/deliveries")
    return {"of": of, "deliveries": items(found)[:SHOWN]}


async def sequences(site: Site, visitor: Visitor, _: web.Request) -> Mapping[str, Any]:
    found = await site.gateway.get(visitor, "/api/followups/sequences")
    return {"steps": items(found)}


async def stand_in(call: Call) -> None:
    """From now for some hours, or on the day of the week that was tapped."""
    schedule, _, person = str(call.form.get("who", "")).partition(" ")
    body = {"schedule": schedule, "person": person}
    if call.text("day"):
        body |= {"begins": call.time("begins"), "ends": call.time("ends"), "why": call.text("day")}
    else:
        body |= {"ends": _ends(call), "why": call.reason()}
    named = {"changed_meanwhile": "stands_in_already"}
    await call.ask("POST", "/api/oncall/overrides", body, **named)


async def swap(call: Call) -> None:
    shifts = [call.text("one"), call.text("other")]
    body = {"schedule": call.text("schedule"), "shifts": shifts, "why": call.reason()}
    named = {"changed_meanwhile": "stands_in_already"}
    await call.ask("POST", "/api/oncall/swaps", body, **named)


def _ends(call: Call, less: timedelta = timedelta()) -> str:
    if (hours := call.text("hours")) not in map(str, call.offers["hours"]):
        raise RefusedError("bad_reason", 422)
    return (datetime.now(UTC) + timedelta(hours=int(hours)) + less).isoformat()


async def change_limit(call: Call) -> None:
    """Without a text, undo the earlier change."""
    if call.name not in call.offers["changeable"]:
        raise web.HTTPNotFound
    # A number, and the time it is for.
    body = {call.name: " per ".join(map(str, call.form.getall("limit", ()))) or None}
    await call.ask("PUT", "/api/ratelimits", body, not_accepted="bad_limit")


async def stop_follow_ups(call: Call) -> None:
    reason = call.chosen("reason", call.offers["reasons"])
    body = {"conversation_id": str(call.id("conversation")), "reason": reason}
    await call.ask("POST", "/api/followups/stop", body)


async def decide(call: Call) -> None:
    verb = call.chosen("answer", ("release", "discard"))
    await call.ask("POST", f"/api/leads/suspected/{call.name}/{verb}")


async def replay(call: Call) -> Mapping[str, Any]:
    hours = call.chosen("hours", [*map(str, call.offers["replay_hours"])])
    now = datetime.now(UTC)
    since = (now - timedelta(hours=int(hours))).isoformat()
    body = {"target": call.form.get("target"), "since": since, "until": now.isoformat()}
    body |= {"dry_run": call.text("act") != "send"}
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
        since = {"unit": unit, "zone": str(ZONE), "since": times[0]}
        sampled = await run(tx, "samples_by_time", **since)
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


FUNCTIONS: Mapping[str, Any] = {
    each.__name__: each
    for each in (
        many, counted, with_consents, decide, silence, preview, watch, pause, send_again,
        deliveries, stand_in, swap, quiet, change_limit, sequences, stop_follow_ups, replay,
        backlog, admin.all_keys, admin.create_key, admin.rotate_key, admin.revoke_key,
        admin.everybody, admin.invite, admin.invite_again, admin.set_roles, admin.reset_factor,
        admin.disable, admin.record,
    )
}  # fmt: skip


def _act(said: str) -> Act:
    """Return a function, or the act that makes this call with the name in the form's path."""
    method, _, path = said.partition(" ")
    if not path:
        named: Act = FUNCTIONS[said]
        return named

    async def ask(call: Call) -> None:
        await call.ask(method, path.format(call.name))

    return ask


def _read(path: str, of: dict[str, Any]) -> Listing:
    roles = tuple(map(Role, of.pop("roles", None) or NEEDED[path]))
    acts = {below: _act(said) for below, said in of.pop("acts", {}).items()}
    of |= {name: FUNCTIONS[of[name]] for name in ("more", "about") if name in of}
    return Listing(name=path.rpartition("/")[2], path=HOME + path, roles=roles, acts=acts, **of)


NEEDED = {path: roles for pages in GROUPS.values() for path, roles in pages.items()}
LISTS = {path: _read(path, of) for path, of in beside.toml(__file__).items()}
