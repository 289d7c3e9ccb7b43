"""Follow-ups for the company's programs: enrol, list, stop, cancel."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import Any, Literal, Self
from uuid import UUID

from aiohttp import web
from pydantic import ConfigDict, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.http.application import (
    Model,
    Problem,
    json_response,
    only,
    page,
    parse,
    parse_query,
    path_id,
    there,
)
from libs.common.process import logs
from libs.domain import acts_outbox
from libs.domain.acts import Actor
from libs.domain.email_address import Email
from services.followups import metrics
from services.followups.config import Config
from services.followups.mails.compose import Mails
from services.followups.store import conversations, sql, steps
from services.followups.store.sql import run
from services.followups.store.tables import Row

LONGEST_DELAY = 365 * 24 * 3600
PAGE = 100


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


class Wanted(Model):
    """Query parameters of the list."""

    model_config = ConfigDict(extra="ignore")
    email: Email | None = None
    conversation_id: UUID | None = None
    status: Literal["scheduled", "handed_over", "in_doubt"] | None = None
    cursor: UUID | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if [self.email, self.conversation_id, self.status].count(None) != 2:
            raise ValueError("give one of email, conversation_id and status")
        return self


@dataclass(frozen=True, eq=False)
class FollowupRoutes:
    engine: AsyncEngine
    config: Config
    mails: Mails

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/followups", only("service", self.enrol))
        app.router.add_get("/api/followups", only("service", self.list))
        app.router.add_get("/api/followups/sequences", only("service", self.sequences))
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
            there = {"conversation": conversation_id, "email": email}
            await run(tx, "resume_followups", **there)
            await steps.lock_address(tx, email)
            if (await run(tx, "is_barred", **there)).scalar_one():
                raise Problem(409, detail="mail to this address has bounced")
            enrol = partial(
                steps.enrol, tx, conversation_id, email, body.sequence, due, "api",
                logs.request_id.get(),
            )  # fmt: skip
            rows, changed = await enrol()
            if all(row["enrolled_by"] == "chat" and row["status"] == "scheduled" for row in rows):
                # The chat enrolled this lead automatically; a person now decides when.
                await steps.retime(tx, rows, due, "api")
                rows, changed = (await enrol()).rows, True
            # A program's enrolment is its daily work; the rows record it.
            if changed and Actor.of(request.headers).kind == "staff":
                what = ("followup.enrol", "conversation", conversation_id)
                await acts_outbox.record(tx, request, *what)
        return json_response(
            {"items": [_item(row) for row in rows], "next_cursor": None},
            status=202 if changed else 200,
        )

    async def _conversation(self, tx: AsyncConnection, body: OnePerson) -> tuple[UUID, str | None]:
        if body.conversation_id is None:
            assert body.email is not None  # noqa: S101 - the model requires one of the two
            return await conversations.conversation_of_address(tx, body.email), body.email
        found = await sql.row(tx, "conversation", conversation=body.conversation_id)
        found = there(found, "conversation")
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
                ending = {"conversation": conversation_id, "email": email, "reason": body.reason}
                await run(tx, "end_followups", **ending)
            stopped = await steps.stop(tx, body.reason, conversation_id, email=email)
            what = ("followup.stop", "conversation", conversation_id)
            await acts_outbox.record(tx, request, *what, len(stopped), reason=body.reason)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        return json_response({"cancelled": len(stopped)})

    async def list(self, request: web.Request) -> web.Response:
        wanted = parse_query(request, Wanted)
        asked = wanted.model_dump(exclude={"cursor"})
        async with self.engine.begin() as tx:
            rows = await sql.rows(tx, "steps", **asked, after=wanted.cursor, limit=PAGE + 1)
            found = page(rows, PAGE, itemgetter("id"), _item)
            seen = {each["conversation_id"] for each in found["items"]}
            await acts_outbox.look(
                tx, request.headers, "followups.look", "conversation", seen, **asked
            )
        return json_response(found)

    async def sequences(self, _: web.Request) -> web.Response:
        """Count the steps of the last 90 days by what became of them, and show their mails."""
        found = [row._asdict() for row in await run.alone(self.engine, "by_step")]
        items = [
            {
                "sequence": name,
                "step": number,
                "counts": {
                    each["reason"] or each["status"]: each["count"]
                    for each in found
                    if (each["sequence"], each["step"]) == (name, number)
                },
                "mails": shown,
            }
            for (name, number), shown in self.mails.examples.items()
        ]
        return json_response({"items": items, "next_cursor": None})

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a step and all later steps of its sequence."""
        followup_id = path_id(request, "follow-up")
        async with self.engine.begin() as tx:
            row = there(await sql.row(tx, "step", id=followup_id), "follow-up")
            await steps.lock_address(tx, row["email"])
            here, why = row["conversation_id"], "cancelled by request"
            stopped = await steps.stop(tx, why, here, since=row)
            if stopped:
                what = ("followup.cancel", "followup", followup_id)
                await acts_outbox.record(tx, request, *what, len(stopped))
            row = there(
                await sql.row(tx, "step", id=followup_id),
                "follow-up: this person was erased in the meantime",
            )
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        if row["status"] != "cancelled":
            raise Problem(409, detail=f"this follow-up is already {row['status']}")
        return json_response(_item(row) | {"cancelled": len(stopped)})


def _item(row: Row) -> dict[str, Any]:
    shown = (
        "id", "conversation_id", "followup_number", "email", "sequence", "step", "status",
        "reason", "due_at", "handed_over_at", "sent_at", "created_at",
    )  # fmt: skip
    return {name: row[name] for name in shown}
