"""Follow-ups for the company's programs: enrol, list, stop, cancel."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self
from uuid import UUID

from aiohttp import web
from pydantic import Field, model_validator
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.http.application import Model, Problem, json_response, only, parse, path_id
from libs.common.process import logs
from libs.domain import acts_outbox
from libs.domain.acts import Act, Actor
from libs.domain.email_address import Email, MalformedEmail, normalise
from services.followups import metrics
from services.followups.config import Config
from services.followups.store import conversations, steps
from services.followups.store.tables import Row

LONGEST_DELAY = 365 * 24 * 3600
PAGE = 100
UNSETTLED = ("scheduled", "handed_over", "in_doubt")


class OnePerson(Model):
    email: Email | None = None
    conversation_id: UUID | None = None

    @model_validator(mode="after")
    def _names_one_person(self) -> Self:
        if (self.email is None) == (self.conversation_id is None):
            raise ValueError("give either email or conversation_id")
        return self


class Enrol(OnePerson):
    sequence: str = Field("default", max_length=60)
    delay_seconds: int | None = Field(None, ge=0, le=LONGEST_DELAY)


class Stop(OnePerson):
    reason: Literal["reply", "staff", "bounce"]
    """`reply`: the person answered by e-mail or phone. `staff`: staff took over. `bounce`: the
    address permanently refuses mail."""


@dataclass(frozen=True, eq=False)
class FollowupRoutes:
    engine: AsyncEngine
    config: Config

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/followups", only("service", self.enrol))
        app.router.add_get("/api/followups", only("service", self.list))
        app.router.add_post("/api/followups/stop", only("service", self.stop))
        app.router.add_delete("/api/followups/{id}", only("service", self.cancel))

    async def enrol(self, request: web.Request) -> web.Response:
        """Answer 202 with newly scheduled steps, or 200 with the existing ones."""
        body = await parse(request, Enrol)
        if body.sequence not in self.config.sequences:
            raise Problem(422, errors=[("sequence", "this sequence is not configured")])
        delay = None if body.delay_seconds is None else timedelta(seconds=body.delay_seconds)
        due = self.config.due_times(body.sequence, datetime.now(UTC), first_delay=delay)
        async with self.engine.begin() as tx:
            conversation_id, email = await self._conversation(tx, body)
            if email is None:
                raise Problem(
                    422, errors=[("conversation_id", "this conversation has no e-mail address")]
                )
            await conversations.resume_followups(tx, conversation_id, email)
            await steps.lock_address(tx, email)
            if await conversations.followups_ended_by(tx, conversation_id, email):
                raise Problem(409, detail="mail to this address has bounced")
            enrolled = await steps.enrol(
                tx, conversation_id, email, body.sequence, due, "api", logs.request_id.get()
            )
            rows, changed = enrolled.rows, enrolled.is_new
            if all(row["enrolled_by"] == "chat" and row["status"] == "scheduled" for row in rows):
                # The chat enrolled this lead automatically; a person now decides when.
                await steps.retime(tx, rows, due, "api")
                rows = await steps.rows_of(tx, steps.in_ids([row["id"] for row in rows]))
                changed = True
            # A program's enrolment is its daily work; the rows record it.
            if changed and Actor.of(request.headers).kind == "staff":
                await acts_outbox.record(
                    tx, _act(request, "followup.enrol", "conversation", conversation_id)
                )
        return json_response(
            {"items": [_item(row) for row in rows], "next_cursor": None},
            status=202 if changed else 200,
        )

    async def _conversation(self, tx: AsyncConnection, body: OnePerson) -> tuple[UUID, str | None]:
        if body.conversation_id is None:
            assert body.email is not None  # noqa: S101 - the model requires one of the two
            return await conversations.conversation_of_address(tx, body.email), body.email
        found = await conversations.conversation(tx, body.conversation_id)
        if found is None:
            raise Problem(404, detail="no such conversation")
        return found["id"], found["email"]

    async def stop(self, request: web.Request) -> web.Response:
        """End a recipient's follow-ups in all conversations.

        Messages still in the outbox are recalled. What alerts already has is sent if consent
        grants its permit.
        """
        body = await parse(request, Stop)
        async with self.engine.begin() as tx:
            conversation_id, email = await self._conversation(tx, body)
            if body.reason != "reply":
                await conversations.end_followups(tx, conversation_id, email, body.reason)
            if email is not None:
                await steps.lock_address(tx, email)
            which = steps.of_recipient(conversation_id, email)
            stopped = await steps.stop(tx, which, body.reason)
            act = _act(request, "followup.stop", "conversation", conversation_id, body.reason)
            await acts_outbox.record(tx, act, len(stopped))
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        return json_response({"cancelled": len(stopped)})

    async def list(self, request: web.Request) -> web.Response:
        which = _asked_for(request.query)
        after = _uuid(request.query["cursor"], "cursor") if "cursor" in request.query else None
        async with self.engine.begin() as tx:
            rows = await steps.page(tx, which, after, PAGE + 1)
            more, rows = len(rows) > PAGE, rows[:PAGE]
            seen = {row["conversation_id"] for row in rows}
            asked = {
                name: request.query.get(name) for name in ("email", "conversation_id", "status")
            }
            await acts_outbox.look(
                tx, request.headers, "followups.look", "conversation", seen, **asked
            )
        return json_response(
            {
                "items": [_item(row) for row in rows],
                "next_cursor": str(rows[-1]["id"]) if more else None,
            }
        )

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a step and all later steps of its sequence."""
        followup_id = path_id(request, "follow-up")
        async with self.engine.begin() as tx:
            row = await steps.step(tx, followup_id)
            if row is None:
                raise Problem(404, detail="no such follow-up")
            await steps.lock_address(tx, row["email"])
            stopped = await steps.stop(tx, steps.from_step(row), "cancelled by request")
            if stopped:
                act = _act(request, "followup.cancel", "followup", followup_id)
                await acts_outbox.record(tx, act, len(stopped))
            row = await steps.step(tx, followup_id)
        if row is None:
            raise Problem(404, detail="this person was erased in the meantime")
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        if row["status"] != "cancelled":
            raise Problem(409, detail=f"this follow-up is already {row['status']}")
        return json_response(_item(row) | {"cancelled": len(stopped)})


def _act(request: web.Request, action: str, kind: str, ref: UUID, reason: str | None = None) -> Act:
    return Act.of(request.headers, action, kind, str(ref), reason=reason)


def _asked_for(query: Mapping[str, str]) -> Any:
    if len({"email", "conversation_id", "status"} & set(query)) != 1:
        raise Problem(422, detail="give one of email, conversation_id and status")
    if "status" in query:
        if query["status"] not in UNSETTLED:
            raise Problem(422, errors=[("status", f"must be one of {', '.join(UNSETTLED)}")])
        return steps.in_state(query["status"])
    if "email" not in query:
        return steps.of_conversation(_uuid(query["conversation_id"], "conversation_id"))
    try:
        return steps.of_address(normalise(query["email"]))
    except MalformedEmail as error:
        raise Problem(422, errors=[("email", str(error))]) from None


def _uuid(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Problem(422, errors=[(field, "not a UUID")]) from None


_SHOWN = (
    "id", "conversation_id", "followup_number", "email", "sequence", "step", "status", "reason",
    "due_at", "handed_over_at", "sent_at", "created_at",
)  # fmt: skip


def _item(row: Row) -> dict[str, Any]:
    return {
        name: row[name].isoformat() if isinstance(row[name], datetime) else row[name]
        for name in _SHOWN
    }
