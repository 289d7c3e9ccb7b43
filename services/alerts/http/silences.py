"""Silences: for a time alerts are not sent, and their cases wait until it ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field, StringConstraints, ValidationInfo, field_validator
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Model, Moment, Problem, json_response, parse
from libs.common.process.logs import log
from libs.domain.acts import chosen
from libs.domain.acts_outbox import record
from services.alerts import messages
from services.alerts.config.matchers import MOST_MATCHERS, MOST_TEXT, BadMatcherError, matcher
from services.alerts.config.targets import Config
from services.alerts.http.common import ZoneName, admin, number_in_path, operator
from services.alerts.messages import columns
from services.alerts.rules.silence import Silence, Weekly
from services.alerts.store.cases import silences

LONGEST = timedelta(days=14)
LONGEST_WEEKLY = timedelta(days=366)
SHOWN = 100
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_REGULAR = ("event_type", "target", "severity", "source", "created_at")


Short = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=MOST_TEXT)]
Clock = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class Repeats(Model):
    days: Annotated[list[Literal[DAYS]], Field(min_length=1, max_length=7)]  # type: ignore[valid-type]
    begins: Clock
    ends: Clock
    zone: ZoneName

    @field_validator("ends")
    @classmethod
    def _last_a_while(cls, ends: str, info: ValidationInfo) -> str:
        if ends == info.data.get("begins"):
            raise ValueError("must differ from begins")
        return ends

    def stored(self) -> dict[str, Any]:
        days = [1 + DAYS.index(day) for day in self.days]
        return self.model_dump() | {"days": sorted(set(days))}


def weekly(found: Weekly) -> dict[str, Any]:
    """Return what `Repeats` reads."""
    days = [DAYS[day - 1] for day in sorted(found.days)]
    begins, ends = (f"{each:%H:%M}" for each in (found.begins, found.ends))
    return {"days": days, "begins": begins, "ends": ends, "zone": found.zone.key}


class Covered(Model):
    """What a silence covers; the four names are the matchers of the release before."""

    matchers: Annotated[tuple[Text, ...], Field(max_length=MOST_MATCHERS)] = ()
    critical: bool = False
    event_type: Short | None = None
    severity: Annotated[str, Field(pattern="^(info|warning|critical)$")] | None = None
    source: Short | None = None
    dedup_key: Short | None = None

    @property
    def texts(self) -> list[str]:
        return [*self.matchers, *silences.old_texts(self)]


class Asked(Covered):
    begins: Moment | None = None
    ends: Moment
    weekly: Repeats | None = None
    why: Annotated[str, Field(min_length=1, max_length=500)]


@dataclass(frozen=True, eq=False)
class SilenceRoutes:
    engine: AsyncEngine
    config: Config

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/silences", admin(self.running))
        app.router.add_post("/api/silences", admin(self.add))
        app.router.add_post("/api/silences/preview", admin(self.preview))
        app.router.add_delete("/api/silences/{id}", admin(self.end))

    async def running(self, _: web.Request) -> web.Response:
        rows = await silences.run.alone(self.engine, "running")
        return json_response({"items": [_shown(row) for row in rows]})

    async def add(self, request: web.Request) -> web.Response:
        body = await parse(request, Asked)
        by, now = operator(request), datetime.now(UTC)
        begins = max(body.begins or now, now)
        most = LONGEST if body.weekly is None else LONGEST_WEEKLY
        errors = list(self._faults(body))
        if not begins < body.ends <= begins + most:
            errors.append(("ends", f"must be after it begins, and at most {most.days} days later"))
        if by is None:
            errors.append(("X-Operator", "say who you are"))
        if errors:
            raise Problem(422, errors=errors)
        values = {"matchers": body.texts, "critical": body.critical, "ends": body.ends}
        values |= {"weekly": body.weekly and body.weekly.stored(), "by": by, "why": body.why}
        values |= {"begins": begins} if body.begins else {}
        async with self.engine.begin() as tx:
            number = await silences.add(tx, **values)
            if number is None:
                raise Problem(409, detail=f"{silences.MOST} silences run: end one first")
            ref = f"{number} {chosen(matchers=', '.join(body.texts), critical=body.critical)}"
            await record(tx, request, "silence.begin", "silence", ref, reason=body.why)
        log.info("silence.added", id=number, operator=by)
        return json_response({"id": number})

    def _faults(self, body: Covered) -> Iterator[tuple[str, str]]:
        if not body.texts:
            yield "matchers", "give at least one, as in event_type=backup.failed"
        for number, text in enumerate(body.texts):
            old = number >= len(body.matchers)
            place = text.partition("=")[0] if old else f"matchers.{number}"
            try:
                each = matcher(text)
            except BadMatcherError as error:
                yield place, str(error)
                continue
            match each.name, each.op, each.value:
                case "event_type", "=", name if not messages.may_be_silenced(name):
                    yield place, "leads, and mails of Ostoja's own, cannot wait"
                case "event_type", "=", name if not self.config.route(name, None):
                    yield place, f"no route of alerts.toml is for {name}"
                case "severity", "=", "critical" if not body.critical:
                    yield "critical", "must be true to silence critical alerts"

    async def preview(self, request: web.Request) -> web.Response:
        """Show which open alerts a silence would fit; those already accepted are sent anyway."""
        body = await parse(request, Covered)
        if errors := list(self._faults(body)):
            raise Problem(422, errors=errors)
        now = datetime.now(UTC)
        asked = Silence(0, tuple(map(matcher, body.texts)), body.critical, now, now)
        items = list[dict[str, Any]]()
        async with self.engine.connect() as tx:
            keys = await silences.run(tx, "open_keys", batch=silences.MOST_OPEN)
            for at in range(0, len(keys), silences.CHUNK):
                ids, targets = map(list, zip(*keys[at : at + silences.CHUNK], strict=True))
                for row in await silences.run(tx, "rows", ids=ids, targets=targets):
                    if messages.may_be_silenced(row.event_type) and asked.fits(row):
                        items.append({"id": str(row.alert_id), **columns(row, *_REGULAR)})
        complete = len(keys) < silences.MOST_OPEN
        found = {"matched": len(items), "examined": len(keys), "complete": complete}
        return json_response(found | {"items": items[:SHOWN]})

    async def end(self, request: web.Request) -> web.Response:
        number = number_in_path(request)
        async with self.engine.begin() as tx:
            cases = await silences.end(tx, number)
            if cases is None:
                raise Problem(404, detail="no such silence runs")
            await record(tx, request, "silence.end", "silence", number, cases)
        log.info("silence.ended", id=number, cases=cases, operator=operator(request))
        return json_response({"ended": number, "cases": cases})


def _shown(row: Any) -> dict[str, Any]:
    found = silences.read(row)
    return {
        "matchers": list(map(str, found.matchers)),
        **columns(row, "id", "critical", "begins", "ends", "by", "why"),
        "weekly": found.weekly and weekly(found.weekly),
        "active_until": found.until(datetime.now(UTC)),
    }
