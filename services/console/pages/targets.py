"""Targets: their breakers, charts of what waits and fails, and their queues in RabbitMQ's pages."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from services.console.gateway import Gateway, part
from services.console.pages.door import Door
from services.console.pages.page import answered, page
from services.console.rules import Role, may
from services.console.samples import PERIODS, begins, charts
from services.console.store import samples
from services.console.store.sessions import Visitor
from services.console.texts import ZONE

PATH = "/console/targets"
QUEUE = "alerts."
INTAKE = "alerts.intake"
FORMATS = {"hour": "%d.%m %H:%M", "day": "%d.%m"}


class TargetRoutes:
    def __init__(self, engine: AsyncEngine, door: Door, gateway: Gateway, queues_url: str) -> None:
        """:param queues_url: before a queue's name, in RabbitMQ's UI; empty: no links"""
        self._engine = engine
        self._door = door
        self._gateway = gateway
        self._queues_url = queues_url

    def add_to(self, app: web.Application) -> None:
        self._door.add(app, "GET", PATH, self.targets, Role.VIEWER, Role.OPS)
        self._door.add(app, "POST", f"{PATH}/{{target}}/reset", self.reset, Role.OPS)

    async def targets(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        days = request.query.get("days", "")
        unit, count = PERIODS.get(days, PERIODS["1"])
        times = begins(unit, count, datetime.now(UTC), ZONE)
        async with self._engine.connect() as tx:
            sampled = await samples.by_time(tx, unit, str(ZONE), times[0])
        breakers, counted, health = await asyncio.gather(
            self._gateway.get(visitor, "/api/breakers"),
            self._gateway.get(visitor, "/api/dlq/stats"),
            self._gateway.get(visitor, "/api/health/deep"),
        )
        # 503 says that something is unhealthy, and still has the queues.
        depths = (health.body or {}).get("queues", {})
        counts = counted.body["targets"] if counted.ok else {}
        return page(
            request, "targets.html", "targets", visitor, live="alerts breakers",
            status=status if breakers.ok else breakers.page_status,
            fault=fault or breakers.fault, acts=may(visitor.roles, Role.OPS),
            targets=list(_rows(breakers.body, counts, depths)) if breakers.ok else [],
            intake={"name": INTAKE, "depth": depths.get(INTAKE)}, queues_url=self._queues_url,
            away=counted.fault, charts=charts(sampled, times), unit=unit, periods=PERIODS,
            times=[f"{at.astimezone(ZONE):{FORMATS[unit]}}" for at in times],
        )  # fmt: skip

    async def reset(self, request: web.Request, visitor: Visitor) -> web.Response:
        path = f"/api/breakers/{part(request.match_info['target'])}/reset"
        answer = await self._gateway.post(visitor, path)
        return await answered(request, visitor, answer, self.targets, PATH)


def _rows(breakers: Any, counts: Any, depths: Any) -> Iterator[dict[str, Any]]:
    for name, breaker in sorted(breakers.items()):
        queue = QUEUE + name
        yield {
            **breaker,
            "name": name,
            "path": quote(name, safe=""),
            "counts": counts.get(name),
            "queue": queue,
            "depth": depths.get(queue),
        }
