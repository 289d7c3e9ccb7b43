"""Submissions of forms: from the gateway when the broker is unavailable, and those kept apart."""

from dataclasses import dataclass
from operator import itemgetter
from uuid import UUID

from aiohttp import web
from pydantic import Field

from libs.common.http.application import (
    CALLER,
    Model,
    Problem,
    json_response,
    only,
    page,
    parse,
    parse_query,
    path_id,
)
from libs.domain import acts_outbox
from libs.domain.acts import Act
from libs.domain.email_address import Email
from libs.domain.phone_number import Phone
from services.followups.leads.submissions import NotHeld, Submissions
from services.followups.messages import LeadSubmit
from services.followups.store import sql
from services.followups.store.conversations import Subject


class Wanted(Model):
    limit: int = Field(100, ge=1, le=1000, strict=False)
    cursor: UUID | None = None


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
        wanted = parse_query(request, Wanted)
        async with self.submissions.engine.begin() as tx:
            rows = await sql.rows(tx, "suspected", after=wanted.cursor, limit=wanted.limit + 1)
            found = page(rows, wanted.limit, itemgetter("id"), dict)
            seen = [row["id"] for row in found["items"]]
            await acts_outbox.look(tx, request.headers, "lead.look", "submission", seen)
        return json_response(found)

    async def release(self, request: web.Request) -> web.Response:
        """Take a submission as a lead after all: notify staff, and record an agreement."""
        return await self._decided(request, "release", "released")

    async def discard(self, request: web.Request) -> web.Response:
        return await self._decided(request, "discard", "discarded")

    async def _decided(self, request: web.Request, verb: str, state: str) -> web.Response:
        submission_id = path_id(request, "submission")
        by = (request.headers.get("X-Operator") or request.headers.get(CALLER) or "staff")[:200]
        act = Act.of(request.headers, f"submission.{verb}", "submission", str(submission_id))
        try:
            await self.submissions.decide(submission_id, state, by, act)
        except NotHeld:
            raise Problem(404, detail="no suspected submission has this id") from None
        return json_response({"id": str(submission_id), "state": state})
