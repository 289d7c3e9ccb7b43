"""Leads for staff: list (JSON or CSV), import, one of them, and counts."""

import csv
import io
import re
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Annotated, Any, Literal
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, BeforeValidator, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import (
    Model,
    Problem,
    Time,
    json_response,
    media_type,
    only,
    page,
    parse_query,
    path_id,
    there,
)
from libs.common.plain import plain
from libs.domain import acts_outbox, email_address, phone_number
from libs.domain.acts import Act
from libs.domain.email_address import Email
from libs.domain.phone_number import Phone
from libs.domain.scopes import PERSON
from services.followups import messages
from services.followups.config import Config
from services.followups.leads import imports, records, staff
from services.followups.rules import score as lead_score
from services.followups.rules.fact_texts import of_lead, wishes
from services.followups.rules.score import LEAD_STATES
from services.followups.store import leads, sql
from services.followups.store.sql import run
from services.followups.store.tables import Row

MOST = 1000
MOST_SAID, MOST_ALERTS, MOST_QUOTED = 200, 3, 200
STATE = f"^({'|'.join(LEAD_STATES)})$"
_KNOWN = (
    "email", "phone", "name", "city", "wish", "area", "budget", "currency", "start", "may_mail",
    "no_calls", "wants_call", "call_time",
)  # fmt: skip
COLUMNS = (
    "id", "topic", "state", "state_reason", "state_by", "state_at", "score", "language", *_KNOWN,
    "also", "previous", "next", "created_at", "updated_at", "conversation_id", "transcript_url",
    "area_from", "budget_from", "owner", "answered_at", "call_at", "order_value", "order_currency",
    "edited", "version", "form",
)  # fmt: skip
MOST_ASKED, MOST_WORDS = 100, 8
FOLDED = str.maketrans("ąćęłńóśźżäöüß", "acelnoszzaous")


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


def _escaped(word: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", word)


class Wanted(Model):
    """Query parameters of the list. All filters must match."""

    state: str | None = Field(None, pattern=STATE)
    topic: str | None = Field(None, pattern="^[a-z_]{1,40}$")
    since: Time | None = None
    until: Time | None = None
    min_score: int | None = Field(None, ge=0, le=100, strict=False)
    email: Email | None = None
    phone: Phone | None = None
    person: Annotated[str, AfterValidator(_contact)] | None = None
    q: Annotated[list[str], BeforeValidator(_words)] | None = None
    """Words, or parts of them and of numbers: all must occur."""
    owner: str | None = Field(None, min_length=1, max_length=200)
    call_before: Time | None = None
    order: Literal["newest", "oldest"] = "newest"
    limit: int = Field(100, ge=1, le=MOST, strict=False)
    cursor: UUID | None = None
    format: Literal["json", "csv"] = "json"


@dataclass(frozen=True, eq=False)
class LeadRoutes:
    engine: AsyncEngine
    config: Config
    link: staff.Link
    consent: imports.Consent

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/leads", only("service", self.list))
        app.router.add_post("/api/leads/import", only("service", self.import_file))
        app.router.add_get("/api/leads/stats", only("service", self.stats))
        app.router.add_get("/api/leads/{id}", only("service", self.show))

    async def list(self, request: web.Request) -> web.Response:
        """List leads, newest first."""
        wanted = parse_query(request, Wanted)
        filters = wanted.model_dump(exclude={"limit", "cursor", "format", "order", "q", "state"})
        filters["in_state"] = wanted.state
        filters |= {f"q{n}": None for n in range(MOST_WORDS)}
        filters |= {f"q{n}": f"%{_escaped(word)}%" for n, word in enumerate(wanted.q or ())}
        name, most = f"leads_{wanted.order}", wanted.limit + 1
        async with self.engine.begin() as tx:
            rows = await sql.rows(tx, name, **filters, after=wanted.cursor, limit=most)
            found = page(rows, wanted.limit, itemgetter("id"), self.item)
            seen = [each["id"] for each in found["items"]]
            asked = wanted.model_dump(
                mode="json", exclude={"limit", "cursor", "q"}, exclude_defaults=True
            )
            asked |= {"q": "[…]"} if wanted.q else {}  # it may be a name
            await acts_outbox.look(tx, request.headers, "lead.look", "lead", seen, **asked)
        if wanted.format == "csv":
            cursor = found["next_cursor"]
            headers = {"X-Next-Cursor": str(cursor)} if cursor else {}
            text = _csv(found["items"])
            return web.Response(text=text, content_type="text/csv", headers=headers)
        for each, row in zip(found["items"], rows, strict=False):
            each["words"] = " ".join((row["heard"], *row["said"])).strip()[:MOST_QUOTED]
        return json_response(found)

    async def show(self, request: web.Request) -> web.Response:
        """Show a lead with its score's reasons, what was said, and the alerts about it."""
        async with self.engine.begin() as tx:
            row = there(await sql.row(tx, "lead", id=path_id(request, "lead")), "lead")
            await acts_outbox.look(tx, request.headers, "lead.look", "lead", [row["id"]])
            # The first lead of a conversation also has what was sent before 0006.
            old = [] if row["previous"] else [row["conversation_id"], row["heard_in"]]
            forms = await run(tx, "forms_of", lead=row["id"], conversations=old, limit=MOST_ALERTS)
            stream = await sql.rows(
                tx, "stream", lead=row["id"], conversation=row["heard_in"], limit=MOST_SAID
            )
        called = [messages.call_id(row["id"], row["call_at"])] if row["reminded_at"] else []
        names = ("kind", "by", "at", "text")
        return json_response(
            {
                **self.item(row),
                "marketing": await self.consent.marketing(row["known"]),
                "score_reasons": lead_score.score(row["known"], self.config.rules).reasons,
                "conversation": [
                    {"author": each["kind"], "text": each["text"], "at": each["at"]}
                    for each in stream
                    if each["kind"] in {"lead", "bot"}
                ],
                "alert_ids": [row["id"], *called, *forms.scalars()],
                "stream": [{name: each[name] for name in names} | each["data"] for each in stream],
            }
        )

    async def stats(self, request: web.Request) -> web.Response:
        """Count what waits, what the caller has, and what came and ended in two weeks."""
        zone = str(self.config.hours.zone)
        by = request.headers.get("X-Operator", "")
        names = [by, leads.person(by) or ""] if by.startswith(PERSON) else []
        async with self.engine.connect() as tx:
            counts: Any = dict(await run(tx, "two_weeks", zone=zone))
            [now] = await sql.rows(tx, "open_leads", names=names, zone=zone)
        weeks = {name: counts.pop(name) for name in ("this_week", "week_before")}
        days = [{"day": day, **each} for day, each in counts.items()]
        return json_response({**now, **weeks, "days": days})

    async def import_file(self, request: web.Request) -> web.Response:
        """Import a file as it streams in; the report lists each rejected row with its line."""
        parts = request.content.iter_any()
        kind = media_type(request.headers)
        # Generated clients send every file as application/octet-stream.
        if kind in {"text/csv", "application/octet-stream", ""}:
            found = records.csv_records(parts, imports.COLUMNS)
        elif kind in {"application/x-ndjson", "application/jsonl"}:
            found = records.json_lines(parts)
        else:
            raise Problem(415, detail="send text/csv or application/x-ndjson")
        act = acts_outbox.Counted(Act.of(request.headers, "lead.import", "lead", "file"))
        report = await imports.take(self.engine, self.config, self.consent, found, act)
        return json_response(asdict(report))

    def item(self, row: Row) -> dict[str, Any]:
        known, facts = row["known"], of_lead(row["known"])
        whole = {
            **row,
            **{name: known.get(name) for name in _KNOWN},
            "also": wishes(known, self.config.staff_language),
            "area_from": facts.area_from,
            "budget_from": facts.budget_from,
            "owner": leads.person(row["owner"]),
            "version": row["revision"],
            "transcript_url": self.link(row["id"]),
        }
        return {name: plain(whole[name]) for name in COLUMNS}


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
