"""Heartbeats of jobs: make, list, change and delete them; and pings while the broker is away."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from aiohttp import web
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.http.application import Model, Problem, json_response, parse, path_id
from libs.common.process import logs
from libs.common.process.config_file import Duration
from libs.domain import acts_outbox
from libs.domain.acts import Act
from libs.domain.signed_links import Tokens
from services.alerts import messages
from services.alerts.cases.heartbeats import Heartbeats
from services.alerts.http.common import admin, known_zone, service
from services.alerts.messages import HEARTBEAT_MISSED, HeartbeatPing, columns
from services.alerts.rules import heartbeats as rules
from services.alerts.store.cases import cases, heartbeats

log = logs.get_logger(__name__)

MOST = 1_000
PINGS_SHOWN = 20
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_AtLeast = timedelta(minutes=1)
_Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
Span = Annotated[Duration, Field(ge=_AtLeast, le=timedelta(days=366))]


class Changes(Model):
    name: _Name | None = None
    every: Span | None = None
    cron: Annotated[str, Field(max_length=100)] | None = None
    timezone: Annotated[str, Field(max_length=50)] | None = None
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
        async with self.heartbeats.engine.connect() as tx:
            rows = await heartbeats.listed(tx)
        return json_response({"items": [self._shown(row) for row in rows], "next_cursor": None})

    async def one(self, request: web.Request) -> web.Response:
        heartbeat_id = path_id(request, "heartbeat")
        async with self.heartbeats.engine.begin() as tx:
            row, pings = await heartbeats.find(tx, heartbeat_id, PINGS_SHOWN)
            if any(ping.log for ping in pings):  # a log may name people
                action = "heartbeat.look"
                await acts_outbox.look(tx, request.headers, action, "heartbeat", [heartbeat_id])
        if row is None:
            raise _unknown()
        said = [columns(ping, "at", "kind", "code", "log") for ping in pings]
        return json_response(self._shown(row) | {"pings": said})

    async def add(self, request: web.Request) -> web.Response:
        body = await parse(request, New)
        if self.tokens is None:
            raise Problem(503, detail="PING_KEYS is not set, so no ping URL can be signed")
        if not self.routed:
            text = f"{HEARTBEAT_MISSED} has no target in [routes] of alerts.toml"
            raise Problem(422, errors=[("body", text)])
        values = _values(body.model_dump())
        async with self.heartbeats.engine.begin() as tx:
            values["next_at"] = _deadline(values, await cases.now(tx))
            row = await heartbeats.add(tx, values, MOST)
            if row is None:
                raise Problem(409, detail=f"there are {MOST} heartbeats; delete one first")
            await _record(tx, request, "heartbeat.create", row.id)
        log.info("heartbeat.created", id=str(row.id))
        return json_response(self._shown(row), status=201)

    async def change(self, request: web.Request) -> web.Response:
        """Change it; a new time counts from now, and a pause ends what it was alerted about."""
        changes = (await parse(request, Changes)).model_dump(exclude_unset=True)
        async with self.heartbeats.engine.begin() as tx:
            row = await _lock(tx, path_id(request, "heartbeat"))
            kept = {name: getattr(row, name) for name in Changes.model_fields}
            if {"every", "cron"} & changes.keys():  # one instead of the other
                kept |= {"every": None, "cron": None, "timezone": None}
            values = _values(_read(kept) | changes)
            deadline = _deadline(values, await cases.now(tx))
            if changes.keys() - {"name", "severity"}:
                values |= {"next_at": None if values["paused"] else deadline, "started_at": None}
            if values["paused"]:
                values |= await self._over(tx, row, "is paused")
            await heartbeats.change(tx, row.id, values)
            await _record(tx, request, "heartbeat.change", row.id)
            row, _ = await heartbeats.find(tx, row.id, 0)
        return json_response(self._shown(row))

    async def rotate(self, request: web.Request) -> web.Response:
        """Give it another URL; pings of the one before count no more."""
        async with self.heartbeats.engine.begin() as tx:
            row = await _lock(tx, path_id(request, "heartbeat"))
            signed = {"version": row.version + 1, "signed_at": await cases.now(tx)}
            await heartbeats.change(tx, row.id, signed)
            await _record(tx, request, "heartbeat.rotate", row.id)
            row, _ = await heartbeats.find(tx, row.id, 0)
        return json_response(self._shown(row))

    async def remove(self, request: web.Request) -> web.Response:
        async with self.heartbeats.engine.begin() as tx:
            row = await _lock(tx, path_id(request, "heartbeat"))
            await self._over(tx, row, "is deleted")
            await heartbeats.remove(tx, row.id)
            await _record(tx, request, "heartbeat.delete", row.id)
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
            "due_at": due and due.isoformat(),
            "alert_id": row.case_id and str(row.case_id),
            "url": self._url(row),
        }

    def _url(self, row: Any) -> str | None:
        if self.tokens is None or row.event_type is not None:
            return None
        version, signed = str(row.version), row.signed_at
        return f"{self.base_url}/ping/{self.tokens.sign(str(row.id), version, 'ping', signed)}"


def _values(given: dict[str, Any]) -> dict[str, Any]:
    """Return the columns.

    :raises Problem: 422, with each place
    """
    errors = []
    if (given["every"] is None) == (given["cron"] is None):
        errors.append(("every", "give either every, or cron with timezone"))
    elif given["cron"] is None and given["timezone"] is not None:
        errors.append(("timezone", "is for cron"))
    elif given["cron"] is not None:
        given["timezone"] = given["timezone"] or "UTC"
        try:
            known_zone(given["timezone"])
        except ValueError as error:
            errors.append(("timezone", str(error)))
    errors += [
        (name, "is missing") for name in ("name", "grace", "severity") if given[name] is None
    ]
    if errors:
        raise Problem(422, errors=errors)
    every = given["every"] and int(given["every"].total_seconds())
    return given | {
        "every": every,
        "grace": int(given["grace"].total_seconds()),
        "paused": bool(given["paused"]),
    }


def _deadline(values: dict[str, Any], now: datetime) -> datetime:
    """:raises Problem: 422 the cron line is malformed, or never fires"""
    zone = ZoneInfo(values["timezone"] or "UTC")
    schedule = rules.Schedule(values["every"], values["grace"], values["cron"], zone)
    try:
        return schedule.deadline(now)
    except ValueError as error:
        raise Problem(422, errors=[("cron", str(error))]) from None


def _read(kept: dict[str, Any]) -> dict[str, Any]:
    spans = {name: kept[name] for name in ("every", "grace") if kept[name] is not None}
    return kept | {name: timedelta(seconds=seconds) for name, seconds in spans.items()}


def _text(seconds: int | None) -> str | None:
    """Return a time as `Duration` reads it."""
    if not seconds:
        return None
    return next(f"{seconds // of}{unit}" for unit, of in _UNITS.items() if seconds % of == 0)


async def _lock(tx: AsyncConnection, heartbeat_id: UUID) -> Any:
    row = await heartbeats.lock_one(tx, heartbeat_id)
    if row is None:
        raise _unknown()
    if row.event_type is not None:
        raise Problem(409, detail="it is in [heartbeats] of alerts.toml: change it there")
    return row


async def _record(
    tx: AsyncConnection, request: web.Request, action: str, heartbeat_id: UUID
) -> None:
    act = Act.of(request.headers, action, "heartbeat", str(heartbeat_id))
    await acts_outbox.record(tx, act)


def _unknown() -> Problem:
    return Problem(404, detail="no such heartbeat")
