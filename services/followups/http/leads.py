"""Leads for staff: list (JSON or CSV), import, and state changes."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from operator import itemgetter
from typing import Annotated, Any, Literal
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import (
    Model,
    Problem,
    faults,
    in_utc,
    json_response,
    only,
    path_id,
)
from libs.common.http.heads import media_type
from libs.domain import acts_outbox, email_address, phone_number
from libs.domain.acts import Act
from libs.domain.email_address import Email
from libs.domain.phone_number import Phone
from libs.domain.scopes import PERSON
from services.followups import messages
from services.followups.config import Config
from services.followups.leads import files as lead_files
from services.followups.leads import staff, table
from services.followups.messages import LEAD
from services.followups.rules import score as lead_score
from services.followups.rules.fact_texts import least, wishes
from services.followups.rules.score import LEAD_STATES
from services.followups.store import acts, conversations, leads, steps, submissions
from services.followups.store import mails as store_mails
from services.followups.store.tables import Row

MOST = 1000
MOST_SAID, MOST_ALERTS = 200, 3
STATE = f"^({'|'.join(LEAD_STATES)})$"
_OWN = ("id", "topic", "state", "state_reason", "state_by", "state_at", "score", "language")
_KNOWN = (
    "email", "phone", "name", "city", "wish", "area", "budget", "currency", "start", "may_mail",
    "no_calls", "wants_call", "call_time",
)  # fmt: skip
_OTHERS = ("also", "previous", "next")
_TIMES = ("created_at", "updated_at", "conversation_id")
_OF_STAFF = (
    "owner", "answered_at", "call_at", "order_value", "order_currency", "edited", "version", "form",
)  # fmt: skip
_RANGES = ("area_from", "budget_from")
COLUMNS = (*_OWN, *_KNOWN, *_OTHERS, *_TIMES, "transcript_url", *_RANGES, *_OF_STAFF)
MOST_ASKED, MOST_WORDS = 100, 8
FOLDED = str.maketrans("ąćęłńóśźżäöüß", "acelnoszzaous")
DAY = timedelta(days=1)
DAYS, WEEK = 14, 7


def _zone_needed(value: Any) -> Any:
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    if at.tzinfo is None:
        raise ValueError("needs an offset from UTC")
    return at


Moment = Annotated[datetime, BeforeValidator(_zone_needed), AfterValidator(in_utc)]


def _contact(value: str) -> str:
    return email_address.normalise(value) if "@" in value else phone_number.normalise(value)


def _words(text: Any) -> list[str]:
    """Fold as lead_words of 0009 does; a number may be written in groups."""
    if len(str(text)) > MOST_ASKED:
        raise ValueError(f"has at most {MOST_ASKED} characters")
    folded = str(text).lower().translate(FOLDED)
    words = re.sub(r"(?<=\d)[ ().-]+(?=\d)", "", folded).split()
    # A shorter one is in no index.
    if not any(re.search(r"\w{3}", word) for word in words):
        raise ValueError("needs three letters or digits in a row")
    return words[:MOST_WORDS]


class Wanted(Model):
    """Query parameters of the list. All filters must match."""

    state: str | None = Field(None, pattern=STATE)
    topic: str | None = Field(None, pattern="^[a-z_]{1,40}$")
    since: Moment | None = None
    until: Moment | None = None
    min_score: int | None = Field(None, ge=0, le=100, strict=False)
    email: Email | None = None
    phone: Phone | None = None
    person: Annotated[str, AfterValidator(_contact)] | None = None
    q: Annotated[list[str], BeforeValidator(_words)] | None = None
    """Words, or parts of them and of numbers: all must occur."""
    owner: str | None = Field(None, min_length=1, max_length=200)
    call_before: Moment | None = None
    order: Literal["newest", "oldest"] = "newest"
    limit: int = Field(100, ge=1, le=MOST, strict=False)
    cursor: UUID | None = Field(None, strict=False)
    format: Literal["json", "csv"] = "json"


@dataclass(frozen=True, eq=False)
class LeadRoutes:
    engine: AsyncEngine
    config: Config
    link: staff.Link
    erasures: lead_files.Erasures

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/leads", only("service", self.list))
        app.router.add_post("/api/leads/import", only("service", self.import_file))
        app.router.add_get("/api/leads/stats", only("service", self.stats))
        app.router.add_get("/api/leads/{id}", only("service", self.show))

    async def list(self, request: web.Request) -> web.Response:
        """List leads, newest first."""
        wanted = _wanted(request.query)
        filters = wanted.model_dump(exclude={"limit", "cursor", "format"}, exclude_none=True)
        async with self.engine.begin() as tx:
            rows = await leads.page(tx, filters, wanted.cursor, wanted.limit + 1)
            seen = [row["id"] for row in rows[: wanted.limit]]
            asked = wanted.model_dump(
                mode="json", exclude={"limit", "cursor", "q"}, exclude_defaults=True
            )
            asked |= {"q": "[…]"} if wanted.q else {}  # it may be a name
            await acts_outbox.look(tx, request.headers, "lead.look", "lead", seen, **asked)
        more = len(rows) > wanted.limit
        items = [self.item(row) for row in rows[: wanted.limit]]
        cursor = items[-1]["id"] if more else None
        if wanted.format == "csv":
            headers = {"X-Next-Cursor": cursor} if cursor else {}
            return web.Response(text=_csv(items), content_type="text/csv", headers=headers)
        return json_response({"items": items, "next_cursor": cursor})

    async def show(self, request: web.Request) -> web.Response:
        """Show a lead with its score's reasons, what was said, and the alerts about it."""
        async with self.engine.begin() as tx:
            row = await leads.one(tx, path_id(request, "lead"))
            if row is None:
                raise Problem(404, detail="no such lead")
            await acts_outbox.look(tx, request.headers, "lead.look", "lead", [row["id"]])
            said = await conversations.transcript(tx, row["heard_in"], MOST_SAID)
            forms = await submissions.of_lead(tx, row, MOST_ALERTS)
            done = await acts.of_lead(tx, row["id"], MOST_SAID)
            mails = await steps.sent_in(tx, row["heard_in"], MOST_SAID)
            back = await store_mails.run(
                tx, "returned", conversation=row["heard_in"], limit=MOST_SAID
            )
        called = [messages.call_id(row["id"], row["call_at"])] if row["reminded_at"] else []
        stream = [
            *({"kind": author, "by": None, "at": at, "text": text} for author, text, at in said),
            *({"kind": "mail", "by": None, "at": at, "text": name} for name, at in mails),
            *(
                {"kind": "returned", "by": None, "at": at, "text": f"{kind} {status}".strip()}
                for kind, status, at in back
            ),
            *map(acts.shown, done),
        ]
        return json_response(
            {
                **self.item(row),
                "score_reasons": lead_score.score(row["known"], self.config.rules).reasons,
                "conversation": [
                    {"author": author, "text": text, "at": at.isoformat()}
                    for author, text, at in said
                ],
                "alert_ids": [str(row["id"]), *map(str, (*called, *forms))],
                "stream": [
                    each | {"at": each["at"].isoformat()}
                    for each in sorted(stream, key=itemgetter("at"))
                ],
            }
        )

    async def stats(self, request: web.Request) -> web.Response:
        """Count what waits, what the caller has, and what came in two weeks."""
        zone, now = self.config.hours.zone, datetime.now(UTC)
        today = self.config.today(now)
        days = [today - DAY * n for n in reversed(range(DAYS))]
        begins = [datetime.combine(day, time(), zone) for day in (days[0], days[WEEK], today + DAY)]
        by = request.headers.get("X-Operator", "")
        names = [by, leads.person(by) or ""] if by.startswith(PERSON) else []
        async with self.engine.connect() as tx:
            found = await leads.stats(tx, names, str(zone), *begins)
        waits, taken = (found.open.get((LEAD, state)) for state in ("new", "taken"))
        return json_response(
            {
                "waiting": waits.requests if waits else 0,
                "waiting_since": waits.oldest.isoformat() if waits else None,
                "taken": taken.requests if taken else 0,
                "mine": taken.mine if taken else 0,
                "calls_today": found.calls,
                "topics": {
                    topic: each.requests
                    for (topic, state), each in sorted(found.open.items())
                    if state == "new" and topic != LEAD
                },
                "this_week": _counts(found, "this_week"),
                "week_before": _counts(found, "week_before"),
                "days": [{"day": day.isoformat(), **_counts(found, day)} for day in days],
            }
        )

    async def import_file(self, request: web.Request) -> web.Response:
        """Import a file as it streams in; the report lists each rejected row with its line."""
        parts = request.content.iter_any()
        kind = media_type(request.headers)
        # Generated clients send every file as application/octet-stream.
        if kind in {"text/csv", "application/octet-stream", ""}:
            records = table.csv_records(parts, lead_files.COLUMNS)
        elif kind in {"application/x-ndjson", "application/jsonl"}:
            records = table.json_lines(parts)
        else:
            raise Problem(415, detail="send text/csv or application/x-ndjson")
        act = acts_outbox.Counted(Act.of(request.headers, "lead.import", "lead", "file"))
        report = await lead_files.take(self.engine, self.config, self.erasures, records, act)
        return json_response(report.as_json())

    def item(self, row: Row) -> dict[str, Any]:
        known = {name: row["known"].get(name) for name in _KNOWN}
        own = {name: row[name] for name in (*_OWN, *_TIMES)}
        staff = {name: row[name] for name in _OF_STAFF if name != "version"} | {
            "version": row["revision"],
            "owner": leads.person(row["owner"]),
        }
        ranges = {name: least(row["known"], name.removesuffix("_from")) for name in _RANGES}
        others = {
            "also": wishes(row["known"], self.config.staff_language),
            "previous": row["previous"],
            "next": row["next"],
        }
        ordered = {**own, **known, **others, **staff, **ranges}
        ordered["transcript_url"] = self.link(row["id"])
        return {name: _plain(ordered[name]) for name in COLUMNS}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _counts(found: leads.Stats, time_: date | str) -> dict[str, Any]:
    names = ("leads", "answered", "due", "within_hour")
    came = found.by_time.get(time_)
    return {
        **{name: getattr(came, name) if came else 0 for name in names},
        "median_answer_seconds": round(came.median) if came and came.median is not None else None,
        "won": found.won.get(time_, 0),
    }


def _wanted(query: Mapping[str, str]) -> Wanted:
    try:
        return Wanted.model_validate(dict(query))
    except ValidationError as error:
        raise Problem(422, errors=faults(error, "query")) from None


def _csv(items: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in item.items()} for item in items)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Keep a spreadsheet from running a visitor's text as a formula."""
    if isinstance(value, dict):  # the lead before it
        return value["id"]
    if isinstance(value, list):
        value = "; ".join(value)
    is_number = isinstance(value, str) and value[:1] == "+" and value[1:].isdecimal()
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} and not is_number:
        return f"'{value}"
    return value
