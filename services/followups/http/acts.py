"""What staff do with a lead, over HTTP: notes, calls, corrections, who has it, how it ended."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from aiohttp import web
from pydantic import AfterValidator, Field, model_validator

from libs.common.http.application import Model, Moment, Problem, json_response, only, parse, path_id
from services.followups.http.leads import STATE, LeadRoutes
from services.followups.leads import acts as lead_acts
from services.followups.leads.acts import Acts, Doing
from services.followups.leads.imports import Area, Budget, Currency, Start, Wish, Words
from services.followups.rules.facts import MAX_BUDGET
from services.followups.store import acts, leads
from services.followups.store.tables import Row

FARTHEST = timedelta(days=366)


def _ahead(at: datetime) -> datetime:
    if not timedelta(0) < at - datetime.now(UTC) < FARTHEST:
        raise ValueError("must be a time in the next year")
    return at


class _Act(Model):
    version: int | None = Field(None, ge=0)
    """Which one its author saw."""


Text = Annotated[str, Field(min_length=1, max_length=4000)]


class Note(_Act):
    text: Text


class Call(_Act):
    """A call that was made, or is planned. One that was made ends the plan."""

    result: Literal["no_answer", "reached", "not_needed"] | None = None
    at: Annotated[Moment, AfterValidator(_ahead)] | None = None
    """When to call, or to call again."""
    note: Text | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.result is None and self.at is None:
            raise ValueError("give result, at, or both")
        return self


class NewFacts(_Act):
    """Corrected facts; null: unknown. The person's contacts: POST /api/leads/correct."""

    name: Annotated[Words, Field(min_length=1, max_length=200)] | None = None
    city: Annotated[Words, Field(min_length=1, max_length=100)] | None = None
    wish: Wish | None = None
    area: Area | None = None
    budget: Budget | None = None
    currency: Currency | None = None
    start: Start | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set - {"version"}:
            raise ValueError("give at least one fact")
        return self


class Owner(_Act):
    owner: Annotated[Words, Field(min_length=1, max_length=200)] | None
    """Null: nobody."""


class NewState(_Act):
    state: str = Field(pattern=STATE)
    reason: str | None = Field(None, min_length=1, max_length=500)
    order_value: int | None = Field(None, ge=0, le=MAX_BUDGET)
    order_currency: Currency | None = None

    @model_validator(mode="after")
    def _only_what_is_won_has_a_value(self) -> Self:
        if self.order_value is not None and self.state != "won":
            raise ValueError("order_value is for won")
        return self


@dataclass(frozen=True, eq=False)
class ActRoutes:
    acts: Acts
    leads: LeadRoutes

    def add_to(self, app: web.Application) -> None:
        for path, handler in (
            ("notes", self.note),
            ("calls", self.call),
            ("facts", self.correct),
            ("owner", self.assign),
            ("state", self.set_state),
            ("undo", self.undo),
        ):
            app.router.add_post(f"/api/leads/{{id}}/{path}", only("service", handler))

    async def note(self, request: web.Request) -> web.Response:
        body = await parse(request, Note)
        doing = Doing(kind="note", text=body.text, told=[self.acts.words["note"]])
        return await self._done(request, "lead.note", body, lambda _: doing)

    async def call(self, request: web.Request) -> web.Response:
        body = await parse(request, Call)
        words = self.acts.words
        planned = words["planned"].format(at=self.acts.clock(body.at)) if body.at else None
        told = list(filter(None, (body.result and words[body.result], planned)))
        doing = Doing(
            kind="call",
            values={"call_at": body.at, "reminded_at": None},
            text=body.note,
            data={"result": body.result, "call_at": body.at and body.at.isoformat()},
            told=told,
            outcome=body.result or "planned",
        )
        return await self._done(request, "lead.call", body, lambda _: doing)

    async def correct(self, request: web.Request) -> web.Response:
        """Correct facts; what the person says later still replaces them."""
        body = await parse(request, NewFacts)
        given = body.model_dump(exclude={"version"}, exclude_unset=True)
        if given.get("budget") is not None:
            given["budget"] = round(given["budget"])

        def decide(row: Row) -> Doing | None:
            before = row["known"]
            new = {name: value for name, value in given.items() if before.get(name) != value}
            if not new:
                return None
            gone = {f"{name}_range" for name in new} | {n for n, v in new.items() if v is None}
            known = {name: value for name, value in (before | new).items() if name not in gone}
            edited = sorted({*row["edited"], *new})
            data = {"before": {name: before.get(name) for name in new}, "after": new}
            told = [self.acts.words["edit"].format(facts=self.acts.facts(new))]
            values = {"known": known, "edited": edited}
            return Doing(kind="edit", values=values, data=data, told=told)

        return await self._done(request, "lead.edit", body, decide)

    async def assign(self, request: web.Request) -> web.Response:
        body = await parse(request, Owner)
        by, words = lead_acts.who(request.headers), self.acts.words

        def decide(row: Row) -> Doing | None:
            before = leads.person(row["owner"])
            state = "new" if body.owner is None else "taken"
            if row["state"] not in acts.OPEN:
                raise Problem(409, detail="it is closed: undo that first")
            if (before, row["state"]) == (body.owner, state):
                return None
            told = words["owner"].format(owner=body.owner) if body.owner else words["released"]
            values = acts.in_state(row, state, by, datetime.now(UTC), owner=body.owner)
            data = {"before": before, "after": body.owner}
            return Doing(kind="owner", values=values, data=data, told=[told])

        ends = body.owner is not None
        return await self._done(request, "lead.assign", body, decide, ends_followups=ends)

    async def set_state(self, request: web.Request) -> web.Response:
        """Set the state of a lead; any state but `new` ends its follow-ups.

        Those of a request that follows it go on.
        """
        body = await parse(request, NewState)
        by = lead_acts.who(request.headers)

        def decide(row: Row) -> Doing | None:
            if row["state"] == body.state:
                return None
            data = {"before": row["state"], "after": body.state, "reason": body.reason}
            owner = leads.person(by) if body.state == "taken" else None
            values = acts.in_state(
                row, body.state, by, datetime.now(UTC), reason=body.reason, owner=owner
            )
            values |= {"call_at": None, "order_value": None, "order_currency": None}
            told = []
            if body.order_value is not None:
                money = (body.order_value, body.order_currency or "PLN")
                values |= dict(zip(("order_value", "order_currency"), money, strict=True))
                data["order"] = self.acts.value(*money)
                told = [self.acts.words["won"], data["order"]]
            data["owner"] = row["owner"]
            return Doing(kind="state", values=values, data=data, told=told, outcome=body.state)

        return await self._done(
            request, "lead.state", body, decide,
            ends_followups=body.state != "new", reason=body.reason,
        )  # fmt: skip

    async def undo(self, request: web.Request) -> web.Response:
        """Reopen a lead that was closed, as it was before."""
        body = await parse(request, _Act)
        row = await self.acts.undo(request.headers, path_id(request, "lead"), body.version)
        return json_response(self.leads.item(row))

    async def _done(
        self, request: web.Request, action: str, body: _Act, decide: lead_acts.Decide, **more: Any
    ) -> web.Response:
        lead_id = path_id(request, "lead")
        row = await self.acts.do(request.headers, action, lead_id, body.version, decide, **more)
        return json_response(self.leads.item(row))
