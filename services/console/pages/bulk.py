"""How far a retry or discard of many alerts has come, and its stop; deliveries.py begins it."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import path_id
from services.console.bulk import Bulk
from services.console.pages.door import Door
from services.console.pages.page import page, redirect
from services.console.rules import Role, may
from services.console.store import bulk
from services.console.store.sessions import Visitor
from services.console.texts import moment


class BulkRoutes:
    def __init__(self, engine: AsyncEngine, door: Door, work: Bulk) -> None:
        self._engine = engine
        self._door = door
        self._bulk = work

    def add_to(self, app: web.Application) -> None:
        self._door.add(app, "GET", "/console/bulk/{id}", self.show, Role.VIEWER, Role.OPS)
        self._door.add(app, "POST", "/console/bulk/{id}/stop", self.stop, Role.OPS)

    async def show(self, request: web.Request, visitor: Visitor) -> web.Response:
        async with self._engine.connect() as tx:
            found = await bulk.find(tx, path_id(request, "bulk"))
        if found is None:
            raise web.HTTPNotFound
        return page(
            request, "bulk.html", "bulk", visitor, bulk=found, began=moment(found.at),
            ended=found.ended_at and moment(found.ended_at), acts=may(visitor.roles, Role.OPS),
        )  # fmt: skip

    async def stop(self, request: web.Request, visitor: Visitor) -> web.Response:
        bulk_id = path_id(request, "bulk")
        await self._bulk.stop(visitor, bulk_id)
        return redirect(f"/console/bulk/{bulk_id}")
