"""Submissions of forms: from the gateway when the broker is unavailable, and those kept apart."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from pydantic import Field, ValidationError

from libs.common.http.application import (
    CALLER,
    Model,
    Problem,
    faults,
    json_response,
    only,
    parse,
    path_id,
)
from libs.domain import acts_outbox
from libs.domain.acts import Act
from libs.domain.email_address import Email
from libs.domain.phone_number import Phone
from services.followups.leads.submissions import NotHeld, Submissions
from services.followups.messages import LeadSubmit
from services.followups.store import submissions as store
from services.followups.store.conversations import Subject
from services.followups.store.tables import Row


class Wanted(Model):
    limit: int = Field(100, ge=1, le=1000, strict=False)
    cursor: UUID | None = Field(None, strict=False)


class Correction(Model):
    """The person, by one of the first two fields, and the correct data."""

    email: Email | None = None
    phone: Phone | None = None
    name: str | None = Field(None, min_length=1, max_length=200)
    new_email: Email | None = None
    new_phone: Phone | None = None


@dataclass(frozen=True, eq=False)
class SubmissionRoutes:
    submissions: Submissions

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/internal/leads", only("service", self.take))
        app.router.add_post("/api/leads/correct", only("admin", self.correct))
        app.router.add_get("/api/leads/suspected", only("service", self.list))
        app.router.add_post("/api/leads/suspected/{id}/release", only("service", self.release))
        app.router.add_post("/api/leads/suspected/{id}/discard", only("service", self.discard))

    async def take(self, request: web.Request) -> web.Response:
        await self.submissions.take(await parse(request, LeadSubmit))
        return json_response({"status": "accepted"}, status=202)

    async def correct(self, request: web.Request) -> web.Response:
        """Correct a person's name, email or phone (Art. 16 GDPR)."""
        body = await parse(request, Correction)
        subject = Subject(body.email, body.phone)
        given = {"name": body.name, "email": body.new_email, "phone": body.new_phone}
        right = {name: value for name, value in given.items() if value}
        if len(subject.contacts) != 1 or not right:
            fault = "give email or phone, and name, new_email or new_phone"
            raise Problem(422, errors=[("email", fault)])
        await self.submissions.correct(subject, right, request.headers)
        return json_response({"success": True})

    async def list(self, request: web.Request) -> web.Response:
        """List the suspected submissions, oldest first."""
        try:
            wanted = Wanted.model_validate(dict(request.query))
        except ValidationError as error:
            raise Problem(422, errors=faults(error, "query")) from None
        async with self.submissions.engine.begin() as tx:
            last = await store.one(tx, wanted.cursor) if wanted.cursor else None
            after = (last["accepted_at"], last["id"]) if last else None
            rows = await store.apart(tx, after, wanted.limit + 1)
            seen = [row["id"] for row in rows[: wanted.limit]]
            await acts_outbox.look(tx, request.headers, "lead.look", "submission", seen)
        items = [_item(row) for row in rows[: wanted.limit]]
        more = len(rows) > wanted.limit
        return json_response({"items": items, "next_cursor": items[-1]["id"] if more else None})

    async def release(self, request: web.Request) -> web.Response:
        """Take a submission as a lead after all: notify staff, and record an agreement."""
        return await self._decided(request, "released")

    async def discard(self, request: web.Request) -> web.Response:
        return await self._decided(request, "discarded")

    async def _decided(self, request: web.Request, state: str) -> web.Response:
        submission_id = path_id(request, "submission")
        by = (request.headers.get("X-Operator") or request.headers.get(CALLER) or "staff")[:200]
        released = state == "released"
        action = "submission.release" if released else "submission.discard"
        act = Act.of(request.headers, action, "submission", str(submission_id))
        decide = self.submissions.release if released else self.submissions.discard
        try:
            await decide(submission_id, by, act)
        except NotHeld:
            raise Problem(404, detail="no suspected submission has this id") from None
        return json_response({"id": str(submission_id), "state": state})


def _item(row: Row) -> dict[str, Any]:
    shown = (
        "id", "form", "form_version", "language", "fields", "page", "suspicion", "accepted_at",
    )  # fmt: skip
    return {
        name: row[name].isoformat() if isinstance(row[name], datetime) else row[name]
        for name in shown
    } | {"id": str(row["id"])}
