"""Heartbeats of jobs: make, list, change and delete them; and pings while the broker is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from aiohttp import web
from pydantic import AfterValidator, Field, PlainSerializer
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.http.application import Model, Problem, json_response, parse, path_id, there
from libs.common.process import logs
from libs.common.process.config_file import Duration
from libs.common.process.logs import log
from libs.domain import acts_outbox
from libs.domain.acts_outbox import record
from libs.domain.signed_links import Tokens
from services.alerts import messages
from services.alerts.cases.heartbeats import Heartbeats
from services.alerts.http.common import ZoneName, acting, admin, service
from services.alerts.messages import HEARTBEAT_MISSED, HeartbeatPing, columns
from services.alerts.rules import heartbeats as rules
from services.alerts.store.cases import cases, heartbeats

MOST = 1_000
PINGS_SHOWN = 20
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_AtLeast = timedelta(minutes=1)
_Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
Span = Annotated[
    Duration,
    Field(ge=_AtLeast, le=timedelta(days=366)),
    AfterValidator(lambda span: int(span.total_seconds())),
    PlainSerializer(int),  # else pydantic warns that a number is not a timedelta
]
"""Seconds."""


class Changes(Model):
    name: _Name | None = None
    every: Span | None = None
    cron: Annotated[str, Field(max_length=100)] | None = None
    timezone: ZoneName | None = None
    grace: Span | None = None
    severity: Literal["info", "warning", "critical"] | None = None
    paused: bool | None = None


class New(Changes):
    name: _Name
    grace: Span
    severity: Literal["info", "warning", "critical"] = "warning"


@dataclass(frozen=True, eq=False)
class HeartbeatRoutes:
    heartbeats: Heartbeats
    tokens: Tokens | None
    base_url: str
    routed: bool

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/heartbeats", admin(self.listed))
        app.router.add_post("/api/heartbeats", admin(self.add))
        app.router.add_get("/api/heartbeats/{id}", admin(self.one))
        app.router.add_patch("/api/heartbeats/{id}", admin(self.change))
        app.router.add_delete("/api/heartbeats/{id}", admin(self.remove))
        app.router.add_post("/api/heartbeats/{id}/rotate", admin(self.rotate))
        app.router.add_post("/internal/pings", service(self.ping))

    async def ping(self, request: web.Request) -> web.Response:
        """Take a ping under the id that it would have in the broker."""
        ping = await parse(request, HeartbeatPing)
        await self.heartbeats.take(ping, logs.request_id.get())
        return json_response({}, status=202)

    async def listed(self, _: web.Request) -> web.Response:
        rows = await heartbeats.run.alone(self.heartbeats.engine, "listed")
        return json_response({"items": [self._shown(row) for row in rows], "next_cursor": None})

    async def one(self, request: web.Request) -> web.Response:
        heartbeat_id = path_id(request, "heartbeat")
        async with self.heartbeats.engine.begin() as tx:
            row = (await heartbeats.run(tx, "find", id=heartbeat_id)).one_or_none()
            pings = await heartbeats.run(tx, "pings", id=heartbeat_id, limit=PINGS_SHOWN)
            if any(ping.log for ping in pings):  # a log may name people
                action = "heartbeat.look"
                await acts_outbox.look(tx, request.headers, action, "heartbeat", [heartbeat_id])
        said = [columns(ping, "at", "kind", "code", "log") for ping in pings]
        return json_response(self._shown(there(row, "heartbeat")) | {"pings": said})

    async def add(self, request: web.Request) -> web.Response:
        body = await parse(request, New)
        if self.tokens is None:
            raise Problem(503, detail="PING_KEYS is not set, so no ping URL can be signed")
        if not self.routed:
            text = f"{HEARTBEAT_MISSED} has no target in [routes] of alerts.toml"
            raise Problem(422, errors=[("body", text)])
        async with self.heartbeats.engine.begin() as tx:
            values = _columns(body.model_dump(), await cases.now(tx))
            row = await heartbeats.add(tx, values, MOST)
            if row is None:
                raise Problem(409, detail=f"there are {MOST} heartbeats; delete one first")
            await record(tx, request, "heartbeat.create", "heartbeat", row.id)
        log.info("heartbeat.created", id=str(row.id))
        return json_response(self._shown(row), status=201)

    @asynccontextmanager
    async def _acting(
        self, request: web.Request, what: str
    ) -> AsyncIterator[tuple[AsyncConnection, Any]]:
        engine = self.heartbeats.engine
        async with acting(engine, request, heartbeats.run, "heartbeat", what) as (tx, row):
            if row.event_type is not None:
                raise Problem(409, detail="it is in [heartbeats] of alerts.toml: change it there")
            yield tx, row

    async def change(self, request: web.Request) -> web.Response:
        """Change it; a new time counts from now, and a pause ends what it was alerted about."""
        changes = (await parse(request, Changes)).model_dump(exclude_unset=True)
        async with self._acting(request, "change") as (tx, row):
            kept = {name: getattr(row, name) for name in Changes.model_fields}
            if {"every", "cron"} & changes.keys():  # one instead of the other
                kept |= {"every": None, "cron": None, "timezone": None}
            values = _columns(kept | changes, await cases.now(tx)) | {"started_at": None}
            if not changes.keys() - {"name", "severity"}:
                values = kept | changes
            elif values["paused"]:
                values |= await self._over(tx, row, "is paused")
            changed = await heartbeats.change(tx, row.id, values)
        return json_response(self._shown(changed))

    async def rotate(self, request: web.Request) -> web.Response:
        """Give it another URL; pings of the one before count no more."""
        async with self._acting(request, "rotate") as (tx, row):
            signed = {"version": row.version + 1, "signed_at": await cases.now(tx)}
            changed = await heartbeats.change(tx, row.id, signed)
        return json_response(self._shown(changed))

    async def remove(self, request: web.Request) -> web.Response:
        async with self._acting(request, "delete") as (tx, row):
            await self._over(tx, row, "is deleted")
            await heartbeats.run(tx, "remove", id=row.id)
        log.info("heartbeat.deleted", id=str(row.id))
        return json_response({"deleted": str(row.id)})

    async def _over(self, tx: AsyncConnection, row: Any, why: str) -> dict[str, Any]:
        """End what a locked heartbeat was alerted about, as it is not watched any more."""
        if row.case_id is not None:
            over = messages.heartbeat_over(row, await cases.clock(tx), why)
            await self.heartbeats.intake.accept(tx, [over], logs.request_id.get())
        return {"case_id": None}

    def _shown(self, row: Any) -> dict[str, Any]:
        due = row.next_at and row.next_at - timedelta(seconds=row.grace)
        shown = columns(row, "event_type", "cron", "timezone", "severity", "next_at", "last_at")
        return {
            "id": str(row.id),
            "name": row.name,
            "state": rules.state(row, datetime.now(UTC)),
            **shown,
            "every": _text(row.every),
            "grace": _text(row.grace),
            "due_at": due,
            "alert_id": row.case_id and str(row.case_id),
            "url": self._url(row),
        }

    def _url(self, row: Any) -> str | None:
        if self.tokens is None or row.event_type is not None:
            return None
        version, signed = str(row.version), row.signed_at
        return f"{self.base_url}/ping/{self.tokens.sign(str(row.id), version, 'ping', signed)}"


def _columns(given: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return what a heartbeat is to be, with its deadline.

    :raises Problem: 422, with each place
    """
    every, cron = given["every"], given["cron"]
    errors = [(name, "is missing") for name in ("name", "grace", "severity") if given[name] is None]
    if (every is None) == (cron is None):
        errors.append(("every", "give either every, or cron with timezone"))
    elif cron is None and given["timezone"] is not None:
        errors.append(("timezone", "is for cron"))
    if errors:
        raise Problem(422, errors=errors)
    zone = None if cron is None else given["timezone"] or "UTC"
    try:
        schedule = rules.Schedule(every, given["grace"], cron, ZoneInfo(zone or "UTC"))
        deadline = schedule.deadline(now)
    except ValueError as error:
        raise Problem(422, errors=[("cron", str(error))]) from None
    paused = bool(given["paused"])
    next_at = None if paused else deadline
    return given | {"timezone": zone, "paused": paused, "next_at": next_at}


def _text(seconds: int | None) -> str | None:
    """Return a time as `Duration` reads it."""
    if not seconds:
        return None
    return next(f"{seconds // of}{unit}" for unit, of in _UNITS.items() if seconds % of == 0)
