"""Cases: answer, cancel, list, show and check them."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from aiohttp import web
from pydantic import Field

from libs.common.http.application import (
    CALLER,
    Model,
    Moment,
    Problem,
    json_response,
    page,
    parse,
    parse_query,
    path_id,
)
from libs.domain.acts import Act, Actor
from libs.domain.scopes import PERSON
from services.alerts.cases.answers import Answers, Refusal, Result
from services.alerts.http.common import admin, operator, service_or_admin
from services.alerts.messages import columns
from services.alerts.rules.case import FOLLOWUPS, Answer, Refused, State, Verb, Via, key_of
from services.alerts.store.cases import queries as case_queries

PAGE = 100
MAX_KEY = 255
MAX_BRIEF = 200
_KEY = "Idempotency-Key"
_CASE = (
    "event_type", "severity", "state", "reason", "outcome", "owner", "owner_name", "late",
    "generation", "step", "version", "failures", "silence", "opened_at", "next_at",
    "answered_at", "ended_at",
)  # fmt: skip


Flag = Annotated[bool, Field(strict=False)]
Reason = Annotated[str, Field(min_length=1, max_length=500)]
VERBS = tuple(each.value for each in Verb if each is not Verb.CANCEL)


class Given(Model):
    answer: Literal[VERBS]  # type: ignore[valid-type]
    by: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    reason: Reason | None = None
    until: Moment | None = None
    to: Annotated[str, Field(min_length=1, max_length=31)] | None = None
    generation: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    via: Literal["api", "cli"] = "api"


class Cancel(Model):
    reason: Reason


class Asked(Model):
    """The query of the list."""

    state: State | None = None
    owner: str | None = None
    after: UUID | None = None
    leads: Flag | None = None
    closed: Flag | None = None


@dataclass(frozen=True, eq=False)
class CaseRoutes:
    answers: Answers

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/cases", service_or_admin(self.cases))
        app.router.add_get("/api/cases/check", admin(self.check))
        app.router.add_get("/api/cases/{id}", service_or_admin(self.case))
        app.router.add_post("/api/cases/{id}/answer", service_or_admin(self.answer))
        app.router.add_post("/api/cases/{id}/cancel", admin(self.cancel))

    async def answer(self, request: web.Request) -> web.Response:
        """Take an answer; its response is sent after the commit."""
        case_id = path_id(request, "case")
        given = await parse(request, Given)
        person, name = self._who(given.by, operator(request))
        if (given.until is None) == (given.answer in {"later", "remind"}):
            raise Problem(422, errors=[("until", "is for `later` and `remind`, which need it")])
        if (given.to is None) == (given.answer == "hand_over"):
            raise Problem(422, errors=[("to", "is for `hand_over`, which needs it")])
        colleague = self.answers.rules.people.get(given.to or "")
        if given.to and colleague is None:
            raise Problem(422, errors=[("to", "no one of this name is in [people]")])
        answer = Answer(
            verb=Verb(given.answer),
            person=person,
            name=name,
            via=Via(given.via),
            key=_key(request, required=True),
            reason=given.reason,
            until=given.until,
            generation=given.generation,
            to=colleague,
            to_key=given.to,
            admin=request.headers.get(CALLER) == "admin",
        )
        ref = f"{case_id} by {given.by}" if given.by else str(case_id)
        act = Act.of(
            request.headers, "case.answer", "case", ref, reason=given.reason, outcome=given.answer
        )
        return await _response(self.answers.answer(case_id, answer, act))

    def _who(self, by: str | None, caller: str | None) -> tuple[str, str]:
        """Return the key and name of the person who answers, of [people] or of the console.

        A person in both has one name in both, so Slack and the console show one owner.
        """
        people = self.answers.rules.people
        if by is not None:
            if (person := people.get(by)) is None:
                raise Problem(422, errors=[("by", "no one of this name is in [people]")])
            return by, person.name
        if caller is None or not caller.startswith(PERSON):
            raise Problem(422, errors=[("by", "is missing")])
        key, _, name = caller.partition(" ")
        return key_of(people, name) or key, name or key

    async def cancel(self, request: web.Request) -> web.Response:
        case_id = path_id(request, "case")
        body = await parse(request, Cancel)
        name = operator(request) or "admin"
        key = _key(request, required=False)
        answer = Answer(Verb.CANCEL, "admin", name, Via.API, key, reason=body.reason, admin=True)
        act = Act.of(request.headers, "case.cancel", "case", str(case_id), reason=body.reason)
        return await _response(self.answers.answer(case_id, answer, act))

    async def cases(self, request: web.Request) -> web.Response:
        which = parse_query(request, Asked).model_dump()
        rows = await case_queries.run.alone(self.answers.engine, "page", **which, limit=PAGE + 1)

        def listed(row: Any) -> dict[str, Any]:
            return _case(row) | {"brief": _brief(row.payload) if _may_see(request, row) else None}

        found = page(rows, PAGE, lambda row: str(row.alert_id), listed)
        # `next` is the old name, for one more release.
        return json_response(found | {"next": found["next_cursor"]})

    async def case(self, request: web.Request) -> web.Response:
        case_id = path_id(request, "case")
        rules = self.answers.rules
        async with self.answers.engine.connect() as tx:
            row = (await case_queries.run(tx, "case", case_id=case_id)).one_or_none()
            if row is None:
                raise _unknown()
            found: dict[str, Any] = {
                name: [each._asdict() for each in await case_queries.run(tx, name, case_id=case_id)]
                for name in ("steps", "answers", "places")
            }
        for step in found["steps"]:
            step["name"] = rules.person(step["person"]).name
        people = {key: each.name for key, each in rules.people.items()}
        said = row.payload if _may_see(request, row) else None
        found |= {"chain": row.chain, "people": people, "payload": said}
        return json_response(_case(row) | found)

    async def check(self, _: web.Request) -> web.Response:
        async with self.answers.engine.connect() as tx:
            return json_response(await case_queries.check(tx))


def _key(request: web.Request, *, required: bool) -> str:
    key = request.headers.get(_KEY)
    if key is None and not required:
        return str(uuid4())
    if not key or len(key) > MAX_KEY:
        raise Problem(422, errors=[(_KEY, f"give a header of 1 to {MAX_KEY} characters")])
    return key


def _unknown() -> Problem:
    return Problem(404, detail="no such case", headers={"Retry-After": "1"})


async def _response(answered: Awaitable[Result | Refusal]) -> web.Response:
    """:raises Problem: 403 only an admin may; 409 the state is another; 422 `later` is over"""
    result = await answered
    if not isinstance(result, Refusal):
        return json_response(result)
    match result.why:
        case Refused.UNKNOWN:
            raise _unknown()
        case Refused.KEY_USED:
            raise Problem(422, errors=[(_KEY, "was used for another answer")])
        case Refused.ADMIN:
            raise Problem(403, detail="only the admin key may reopen a case")
        case Refused.TOO_LATE:
            text = "not that late or not again: take it or leave it"
            raise Problem(422, errors=[("until", text)])
        case Refused.ANSWERED:
            detail = f"{result.owner} has it since {result.since}"
        case Refused.ENDED:
            detail = f"it is over: {result.reason}"
        case _:
            detail = "it stands otherwise by now: look at it again"
    members = {"error": str(result.why), "owner": result.owner, "since": result.since}
    raise Problem(409, detail=detail, members=members)


def _may_see(request: web.Request, row: Any) -> bool:
    """Return whether the caller sees what the alert said.

    The console records their looks; a key for cases reads nobody's data. A lead has its own page.
    """
    return Actor.of(request.headers).kind == "staff" and row.source != FOLLOWUPS


def _brief(payload: Mapping[str, Any] | None) -> str:
    said = [each for each in (payload or {}).items() if isinstance(each[1], str | int | float)]
    return ", ".join(f"{name}: {value}" for name, value in said)[:MAX_BRIEF]


def _case(row: Any) -> dict[str, Any]:
    return {"id": str(row.alert_id), "steps_in_all": len(row.chain), **columns(row, *_CASE)}
