"""Routes for on-call: who is on call, and overrides."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Model, Moment, Problem, json_response, parse
from libs.common.process import logs
from libs.common.process.config_file import did_you_mean
from libs.domain import acts_outbox
from libs.domain.acts import Act
from services.alerts.cases.on_call import Schedules
from services.alerts.http.common import admin, number_in_path, operator
from services.alerts.messages import columns
from services.alerts.rules.case import Person
from services.alerts.rules.shifts import Shift
from services.alerts.store.cases import overrides

log = logs.get_logger(__name__)

_OVERRIDE = ("id", "schedule", "person", "begins", "ends", "by", "why")
WEEK = timedelta(days=7)
MOST_SHIFTS = 50
Name = Annotated[str, Field(min_length=1, max_length=31)]


class Swap(Model):
    schedule: Name
    shifts: Annotated[list[Moment], Field(min_length=2, max_length=2)]
    """A time in each."""
    why: str | None = Field(None, max_length=500)


class Override(Model):
    schedule: Name
    person: Name
    begins: Moment | None = None
    ends: Moment
    why: str | None = Field(None, max_length=500)


@dataclass(frozen=True, eq=False)
class OnCallRoutes:
    engine: AsyncEngine
    schedules: Schedules
    people: Mapping[str, Person]

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/oncall", admin(self.now))
        app.router.add_post("/api/oncall/overrides", admin(self.add))
        app.router.add_post("/api/oncall/swaps", admin(self.swap))
        app.router.add_delete("/api/oncall/overrides/{id}", admin(self.remove))

    async def now(self, _: web.Request) -> web.Response:
        async with self.engine.connect() as tx:
            rows = await overrides.listed(tx)
        now = datetime.now(UTC)
        return json_response(
            {
                "schedules": {name: self._schedule(name, rows, now) for name in self._rotas},
                "overrides": [columns(row, *_OVERRIDE) for row in rows],
            }
        )

    @property
    def _rotas(self) -> Mapping[str, Any]:
        return self.schedules.rotas.by_name

    def _schedule(self, name: str, rows: Any, now: datetime) -> dict[str, Any]:
        mine = [Shift(row.begins, row.ends, row.person) for row in rows if row.schedule == name]
        found = self.schedules.rotas.who(name, mine, now)
        person = self.people.get(found.person)  # who may have left since the override was made
        return {
            "person": found.person,
            "name": person.name if person else found.person,
            "rule": found.rule,
            "until": found.until.isoformat() if found.until else None,
            "gap_seconds": self.schedules.gap(name, now).total_seconds(),
            "fault": self._rotas[name].fault,
            "able": sorted(self._rotas[name].able),
            "week": list(self._week(name, mine, now)),
            "shifts": [
                columns(each, "person", "begins", "ends")
                for each in self._rotas[name].shifts[:MOST_SHIFTS]
                if each.ends > now
            ],
        }

    def _week(self, name: str, mine: list[Shift], now: datetime) -> Iterator[dict[str, Any]]:
        """Yield who is on call in the next seven days, one after the other."""
        begins, end = now, now + WEEK
        while begins < end:
            found = self.schedules.rotas.who(name, mine, begins)
            ends = min(found.until or end, end)
            person = self.people.get(found.person)
            yield {
                "person": found.person,
                "name": person.name if person else found.person,
                "rule": found.rule,
                "begins": begins.isoformat(),
                "ends": ends.isoformat(),
            }
            begins = ends

    async def add(self, request: web.Request) -> web.Response:
        body = await parse(request, Override)
        begins = body.begins or datetime.now(UTC)
        if errors := self._errors(body, begins):
            raise Problem(422, errors=errors)
        shift = Shift(begins, body.ends, body.person)
        by = operator(request) or "unknown"
        async with self.engine.begin() as tx:
            number = await overrides.add(tx, body.schedule, shift, by=by, why=body.why)
            if number is not None:
                ref = f"{number} {body.schedule}: {body.person}"
                act = Act.of(request.headers, "oncall.override", "override", ref, reason=body.why)
                await acts_outbox.record(tx, act)
        if number is None:
            raise Problem(409, detail=f"another override of {body.schedule} is at that time")
        log.info("oncall.overridden", schedule=body.schedule, person=body.person, operator=by)
        return json_response({"id": number})

    async def swap(self, request: web.Request) -> web.Response:
        """Let two people stand in for each other, in one transaction."""
        body = await parse(request, Swap)
        rota, now = self._rotas.get(body.schedule), datetime.now(UTC)
        if rota is None:
            raise Problem(422, errors=[("schedule", "no schedule has this name")])
        shifts = [each for each in rota.shifts if each.ends > now]
        found = [next((each for each in shifts if each.covers(at)), None) for at in body.shifts]
        errors = [
            (f"shifts.{number}", "no shift of the next 14 days covers this time")
            for number, each in enumerate(found)
            if each is None
        ]
        one, other = found
        if one is None or other is None or one.person == other.person:
            raise Problem(422, errors=errors or [("shifts", "they are of the same person")])
        swapped = [replace(one, person=other.person), replace(other, person=one.person)]
        by, numbers = operator(request) or "unknown", list[int]()
        async with self.engine.begin() as tx:
            for each in swapped:
                shift = replace(each, begins=max(each.begins, now))
                number = await overrides.add(tx, body.schedule, shift, by=by, why=body.why)
                if number is None:
                    raise Problem(409, detail=f"an override of {body.schedule} is at that time")
                numbers.append(number)
            ref = f"{numbers[0]} {body.schedule}: {one.person} and {other.person}"
            act = Act.of(request.headers, "oncall.override", "override", ref, reason=body.why)
            await acts_outbox.record(tx, act)
        log.info("oncall.swapped", schedule=body.schedule, operator=by)
        return json_response({"ids": numbers})

    def _errors(self, body: Override, begins: datetime) -> list[tuple[str, str]]:
        errors = []
        rota = self._rotas.get(body.schedule)
        if rota is None:
            meant = did_you_mean(body.schedule, list(self._rotas))
            errors.append(("schedule", f"no schedule is named {body.schedule}{meant}"))
        elif body.person not in rota.able:
            meant = did_you_mean(body.person, sorted(rota.able))
            why = "is not in [people] with what the schedule's messages need"
            errors.append(("person", f"{body.person} {why}{meant}"))
        if body.ends <= max(begins, datetime.now(UTC)):
            errors.append(("ends", "must be after begins and in the future"))
        return errors

    async def remove(self, request: web.Request) -> web.Response:
        number = number_in_path(request)
        async with self.engine.begin() as tx:
            if not await overrides.remove(tx, number):
                raise Problem(404, detail="there is no such override")
            act = Act.of(request.headers, "oncall.override-end", "override", str(number))
            await acts_outbox.record(tx, act)
        log.info("oncall.override_removed", id=number, operator=operator(request))
        return json_response({"removed": number})
