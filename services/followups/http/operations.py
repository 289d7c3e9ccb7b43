"""The health of the service."""

import asyncio
from dataclasses import dataclass

from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import json_response
from libs.common.messaging.broker import Broker
from services.followups.store import steps

HEALTH_SECONDS = 2.0


@dataclass(frozen=True, eq=False)
class OperationsRoutes:
    engine: AsyncEngine
    broker: Broker

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/health/deep", self.health)

    async def health(self, _: web.Request) -> web.Response:
        """Report health. Without the broker the chat continues: messages wait in the outbox."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS), self.engine.connect() as tx:
                waiting = await steps.outbox_length(tx)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            database, waiting = f"unhealthy: {type(error).__name__}", None
        else:
            database = "healthy"
        rabbitmq = "healthy" if self.broker.connected else "degraded"
        status = "unhealthy" if waiting is None else rabbitmq
        return json_response(
            {
                "status": status,
                "components": {
                    "postgres": {"status": database.partition(":")[0]}
                    | ({"detail": database} if waiting is None else {}),
                    "rabbitmq": {"status": rabbitmq},
                },
                "outbox": waiting,
            }
        )
