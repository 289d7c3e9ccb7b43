"""`GET /health/deep`: a service's health; with `?findings=yes`, also what is wrong around it.

The gateway's health asks for the first twice a second; `ostoja doctor` asks for both.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import surroundings
from libs.common.database import inspection
from libs.common.http.application import json_response
from libs.common.messaging import outbox
from libs.common.messaging.broker import Broker
from libs.common.process.finding import Finding
from libs.common.process.settings import Settings
from libs.common.surroundings import Check

T = TypeVar("T")

HEALTH_SECONDS = 2.0
CHECK_SECONDS = 15.0


@dataclass(frozen=True, eq=False)
class HealthRoute:
    look: Callable[[], Awaitable[dict[str, Any]]]
    name: str
    settings: Settings
    broker: Broker
    migrations: Path
    checks: tuple[Check, ...] = ()
    """Checks that only this service has."""
    links: Mapping[str, SecretStr] = field(default_factory=dict)
    """Links beyond the servers in its settings."""

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/health/deep", self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        found = await self.look()
        if "findings" in request.query:
            url = self.settings.servers["postgres"].get_secret_value()
            found["findings"] = await surroundings.findings(
                self.name,
                self.settings,
                self.broker,
                self.links,
                partial(
                    surroundings.in_thread, inspection.findings, url, self.name, self.migrations
                ),
                *(partial(_in_time, check) for check in self.checks),
            )
        return json_response(found)


async def _in_time(check: Check) -> Iterable[Finding]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except (SQLAlchemyError, OSError, TimeoutError):
        return []  # the check of the database says why


async def postgres(
    engine: AsyncEngine, ask: Callable[[AsyncConnection], Awaitable[T]]
) -> tuple[dict[str, str], T | None]:
    """Return the database's state, and its answer to `ask`; None if none came in time."""
    try:
        async with asyncio.timeout(HEALTH_SECONDS), engine.connect() as tx:
            return {"status": "healthy"}, await ask(tx)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return {"status": "unhealthy", "detail": type(error).__name__}, None


async def with_outbox(engine: AsyncEngine, broker: Broker) -> dict[str, Any]:
    """Check a service that continues without the broker: its messages wait in the outbox."""
    database, waiting = await postgres(engine, outbox.length)
    rabbitmq = "healthy" if broker.connected else "degraded"
    return {
        "status": "unhealthy" if waiting is None else rabbitmq,
        "components": {"postgres": database, "rabbitmq": {"status": rabbitmq}},
        "outbox": waiting,
    }
