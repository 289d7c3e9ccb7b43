"""Routes for on-call: who is on call, overrides, and when people are not asked."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Model, Moment, Problem, json_response, parse
from libs.common.process.config_file import did_you_mean
from libs.common.process.logs import log
from libs.domain.acts import Actor
from libs.domain.acts_outbox import record
from services.alerts.cases.on_call import Schedules
from services.alerts.config.rota import Rota
from services.alerts.http.common import admin, number_in_path, operator
from services.alerts.http.silences import Repeats, weekly
from services.alerts.messages import columns
from services.alerts.rules.case import Person, key_of
from services.alerts.rules.shifts import OnCall, Shift
from services.alerts.store.cases import overrides

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


class Hours(Model):
    weekly: Repeats | None = None
    critical: bool = False


@dataclass(frozen=True, eq=False)
class OnCallRoutes:
    engine: AsyncEngine
    schedules: Schedules

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/oncall", admin(self.now))
        app.router.add_post("/api/oncall/overrides", admin(self.add))
        app.router.add_post("/api/oncall/swaps", admin(self.swap))
        app.router.add_delete("/api/oncall/overrides/{id}", admin(self.remove))
        app.router.add_get("/api/oncall/quiet", admin(self.own))
        app.router.add_put("/api/oncall/quiet", admin(self.quiet))
        app.router.add_put("/api/oncall/quiet/{person}", admin(self.quiet))

    async def now(self, request: web.Request) -> web.Response:
        async with self.engine.connect() as tx:
            rows = await overrides.run(tx, "current")
            people = self.schedules.with_quiet(await overrides.run(tx, "quiet"))
        now = datetime.now(UTC)
        return json_response(
            {
                "schedules": {
                    name: self._schedule(name, rows, now) for name in self.schedules.rotas
                },
                "overrides": [columns(row, *_OVERRIDE) for row in rows],
                "people": {key: _person(each) for key, each in people.items()},
                "you": key_of(people, Actor.of(request.headers).name),
            }
        )

    def _schedule(self, name: str, rows: Any, now: datetime) -> dict[str, Any]:
        mine = [Shift(row.begins, row.ends, row.person) for row in rows if row.schedule == name]
        rota = self.schedules.rotas[name]
        shifts = [each for each in rota.shifts[:MOST_SHIFTS] if each.ends > now]
        found = rota.who(mine, now)
        return self._one(found) | {
            "until": found.until,
            "gap_seconds": self.schedules.gap(name, now).total_seconds(),
            "gaps": [
                dict(zip(("begins", "ends"), each, strict=True))
                for each in self.schedules.gaps(name, now, WEEK)
            ],
            "fault": rota.fault,
            "able": sorted(rota.able),
            "week": list(self._week(rota, mine, now)),
            "shifts": [columns(each, "person", "begins", "ends") for each in shifts],
        }

    def _week(self, rota: Rota, mine: list[Shift], now: datetime) -> Iterator[dict[str, Any]]:
        """Yield who is on call in the next seven days, one after the other."""
        begins, end = now, now + WEEK
        while begins < end:
            found = rota.who(mine, begins)
            ends = min(found.until or end, end)
            yield self._one(found) | {"begins": begins, "ends": ends}
            begins = ends

    def _one(self, found: OnCall) -> dict[str, Any]:
        person = self.schedules.people.get(found.person)  # may have left since an override was made
        name = person.name if person else found.person
        return {"person": found.person, "name": name, "rule": found.rule}

    async def add(self, request: web.Request) -> web.Response:
        body = await parse(request, Override)
        begins = body.begins or datetime.now(UTC)
        if errors := self._errors(body, begins):
            raise Problem(422, errors=errors)
        shift = Shift(begins, body.ends, body.person)
        (number,) = await self._stand_in(request, body.schedule, [shift], body.person, body.why)
        return json_response({"id": number})

    async def _stand_in(
        self, request: web.Request, schedule: str, shifts: list[Shift], who: str, why: str | None
    ) -> list[int]:
        """:raises Problem: 409 another is at the time of one; none is made"""
        by, numbers = operator(request) or "unknown", list[int]()
        async with self.engine.begin() as tx:
            for shift in shifts:
                number = await overrides.add(tx, schedule, shift, by=by, why=why)
                if number is None:
                    raise Problem(409, detail=f"another override of {schedule} is at that time")
                numbers.append(number)
            ref = f"{numbers[0]} {schedule}: {who}"
            await record(tx, request, "oncall.override", "override", ref, reason=why)
        log.info("oncall.overridden", schedule=schedule, persons=who, operator=by)
        return numbers

    async def swap(self, request: web.Request) -> web.Response:
        """Let two people stand in for each other, in one transaction."""
        body = await parse(request, Swap)
        rota, now = self.schedules.rotas.get(body.schedule), datetime.now(UTC)
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
        swapped = [replace(each, begins=max(each.begins, now)) for each in swapped]
        who = f"{one.person} and {other.person}"
        numbers = await self._stand_in(request, body.schedule, swapped, who, body.why)
        return json_response({"ids": numbers})

    def _errors(self, body: Override, begins: datetime) -> list[tuple[str, str]]:
        errors = []
        rota = self.schedules.rotas.get(body.schedule)
        if rota is None:
            meant = did_you_mean(body.schedule, list(self.schedules.rotas))
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
            if not (await overrides.run(tx, "remove", id=number)).rowcount:
                raise Problem(404, detail="there is no such override")
            await record(tx, request, "oncall.override-end", "override", number)
        log.info("oncall.override_removed", id=number, operator=operator(request))
        return json_response({"removed": number})

    def _whose(self, request: web.Request) -> str:
        """Return the person that the path names, or who calls."""
        known = self.schedules.configured
        person = request.match_info.get("person") or key_of(known, Actor.of(request.headers).name)
        if person is None or person not in known:
            raise Problem(404, detail="no one of this name is in [people]")
        return person

    async def own(self, request: web.Request) -> web.Response:
        person = self._whose(request)
        rows = await overrides.run.alone(self.engine, "quiet")
        return json_response(_person(self.schedules.with_quiet(rows)[person]))

    async def quiet(self, request: web.Request) -> web.Response:
        """Say when a person is asked after others; without `weekly`, as the file says."""
        body, person = await parse(request, Hours), self._whose(request)
        async with self.engine.begin() as tx:
            if body.weekly is None:
                await overrides.run(tx, "forget_quiet", person=person)
            else:
                given = {"weekly": body.weekly.stored(), "critical": body.critical}
                by = operator(request) or "unknown"
                await overrides.run(tx, "keep_quiet", person=person, by=by, **given)
            await record(tx, request, "oncall.quiet", "person", person)
            rows = await overrides.run(tx, "quiet")
        log.info("oncall.quiet", person=person, operator=operator(request))
        return json_response(_person(self.schedules.with_quiet(rows)[person]))


def _person(person: Person) -> dict[str, Any]:
    quiet = person.quiet and weekly(person.quiet) | {"critical": person.quiet_if_critical}
    return {"name": person.name, "quiet": quiet}
