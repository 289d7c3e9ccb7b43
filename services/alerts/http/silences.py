"""Silences: for a time alerts are not sent, and their cases wait until it ends."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from aiohttp import web
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Model, Moment, Problem, json_response, parse
from libs.common.process import logs
from libs.domain import acts_outbox
from libs.domain.acts import Act, chosen
from services.alerts.http.common import admin, number_in_path, operator
from services.alerts.messages import columns
from services.alerts.rules.case import Rules
from services.alerts.store.cases import silences

log = logs.get_logger(__name__)

LONGEST = timedelta(days=14)
Text = Annotated[str, Field(min_length=1, max_length=500)]


class Silence(Model):
    event_type: Annotated[str, Field(min_length=1, max_length=100)]
    severity: Annotated[str, Field(pattern="^(info|warning|critical)$")] | None = None
    source: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    dedup_key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    ends: Moment
    why: Text


@dataclass(frozen=True, eq=False)
class SilenceRoutes:
    engine: AsyncEngine
    rules: Rules

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/silences", admin(self.running))
        app.router.add_post("/api/silences", admin(self.add))
        app.router.add_delete("/api/silences/{id}", admin(self.end))

    async def running(self, _: web.Request) -> web.Response:
        async with self.engine.connect() as tx:
            rows = await silences.running(tx)
        names = ("id", *silences.MATCHERS, "begins", "ends", "by", "why")
        return json_response({"items": [columns(row, *names) for row in rows]})

    async def add(self, request: web.Request) -> web.Response:
        body = await parse(request, Silence)
        by = operator(request)
        if errors := self._errors(body, by):
            raise Problem(422, errors=errors)
        matchers = body.model_dump(include=set(silences.MATCHERS))
        async with self.engine.begin() as tx:
            number = await silences.add(tx, matchers, body.ends, by or "", body.why)
            ref = f"{number} {chosen(**matchers)}"
            act = Act.of(request.headers, "silence.begin", "silence", ref, reason=body.why)
            await acts_outbox.record(tx, act)
        log.info("silence.added", id=number, event_type=body.event_type, operator=by)
        return json_response({"id": number})

    def _errors(self, body: Silence, by: str | None) -> list[tuple[str, str]]:
        now, errors = datetime.now(UTC), []
        if body.event_type not in self.rules.silenceable:
            errors.append(("event_type", "only what [answers] names, but leads, can wait"))
        if not now < body.ends <= now + LONGEST:
            errors.append(("ends", f"must be within the next {LONGEST.days} days"))
        if by is None:
            errors.append(("X-Operator", "say who you are"))
        return errors

    async def end(self, request: web.Request) -> web.Response:
        number = number_in_path(request)
        async with self.engine.begin() as tx:
            cases = await silences.end(tx, number)
            if cases is None:
                raise Problem(404, detail="no such silence runs")
            await acts_outbox.record(
                tx, Act.of(request.headers, "silence.end", "silence", str(number)), cases
            )
        log.info("silence.ended", id=number, cases=cases, operator=operator(request))
        return json_response({"ended": number, "cases": cases})
