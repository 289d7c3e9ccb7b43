"""The health of the service."""

import asyncio

from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import json_response
from services.console.store import versions

HEALTH_SECONDS = 2.0


class OperationsRoutes:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/health/deep", self.health)

    async def health(self, _: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(HEALTH_SECONDS), self._engine.connect() as tx:
                restored = bool(await versions.open_restores(tx))
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            postgres = {"status": "unhealthy", "detail": type(error).__name__}
            return json_response({"status": "unhealthy", "components": {"postgres": postgres}})
        keys = {"status": "healthy"}
        if restored:
            keys = {"status": "unhealthy", "detail": "restored: see ostoja keys accept-restore"}
        return json_response(
            {
                "status": keys["status"],
                "components": {"postgres": {"status": "healthy"}, "keys": keys},
            }
        )
