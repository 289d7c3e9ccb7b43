"""Targets: their breakers, what waits for them, and their queues in RabbitMQ's own pages."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from aiohttp import web

from services.console.gateway import Gateway, part
from services.console.http.door import Door
from services.console.http.pages import answered, page
from services.console.person import Role, may
from services.console.store.sessions import Visitor

PATH = "/console/targets"
QUEUE = "alerts."
INTAKE = "alerts.intake"


class TargetRoutes:
    def __init__(self, door: Door, gateway: Gateway, queues_url: str) -> None:
        """:param queues_url: before a queue's name, in RabbitMQ's UI; empty: no links"""
        self._door = door
        self._gateway = gateway
        self._queues_url = queues_url

    def add_to(self, app: web.Application) -> None:
        self._door.add(app, "GET", PATH, self.targets, Role.VIEWER, Role.OPS)
        self._door.add(app, "POST", f"{PATH}/{{target}}/reset", self.reset, Role.OPS)

    async def targets(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        breakers, counted, health = await asyncio.gather(
            self._gateway.get(visitor, "/api/breakers"),
            self._gateway.get(visitor, "/api/dlq/stats"),
            self._gateway.get(visitor, "/api/health/deep"),
        )
        # 503 says that something is unhealthy, and still has the queues.
        depths = (health.body or {}).get("queues", {})
        counts = counted.body["targets"] if counted.ok else {}
        return page(
            request, "targets.html", "targets", visitor,
            status=status if breakers.ok else breakers.page_status,
            fault=fault or breakers.fault, acts=may(visitor.roles, Role.OPS),
            targets=list(_rows(breakers.body, counts, depths)) if breakers.ok else [],
            intake={"name": INTAKE, "depth": depths.get(INTAKE)}, queues_url=self._queues_url,
            away=counted.fault,
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
