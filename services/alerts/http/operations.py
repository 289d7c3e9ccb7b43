"""Routes for operators: health, breakers, the ledger check, the schema."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.http.application import Problem, json_response
from libs.common.process import logs
from libs.domain import acts_outbox as action_outbox
from libs.domain.acts import Act
from services.alerts.http.common import admin, operator
from services.alerts.rules.delivery import BreakerState
from services.alerts.store import schema
from services.alerts.store.ledger import queries
from services.alerts.store.schema import NotOwner, Schema
from services.alerts.targets.status import TargetStatus
from services.alerts.targets.throttle import Throttle
from services.alerts.upkeep.ledger_check import LedgerCheck
from services.alerts.upkeep.reconcile import Reconciler

log = logs.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class OperationsRoutes:
    engine: AsyncEngine
    reconciler: Reconciler
    target_status: TargetStatus
    throttles: Mapping[str, Throttle]
    schema: Schema
    ledger_check: LedgerCheck

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/health/deep", self.health)
        app.router.add_get("/api/breakers", admin(self.breakers))
        app.router.add_post("/api/breakers/{target}/reset", admin(self.reset))
        app.router.add_get("/api/ledger/check", admin(self.check))
        app.router.add_post("/api/migration/create-dead-letter-queue", admin(self.create_relation))
        app.router.add_get("/api/migration/dlq-status", admin(self.relation))

    async def breakers(self, _: web.Request) -> web.Response:
        return json_response(await self.target_status.now())

    async def reset(self, request: web.Request) -> web.Response:
        target = request.match_info["target"]
        if target not in self.throttles:
            raise Problem(404, detail=f"no such target; known are {', '.join(self.throttles)}")
        act = Act.of(request.headers, "breaker.reset", "target", target)
        await self.target_status.reset(target, act)
        return json_response({target: (await self.target_status.now())[target]})

    async def check(self, _: web.Request) -> web.Response:
        return json_response(await self.ledger_check.check())

    async def create_relation(self, request: web.Request) -> web.Response:
        async with self.engine.begin() as tx:
            act = Act.of(
                request.headers, "schema.create", "relation", schema.RELATION, outcome="intended"
            )
            await action_outbox.record(tx, act)
        try:
            found, made = await self.schema.create()
        except NotOwner:
            raise Problem(
                409,
                detail="only the owner of the tables may change them, and its access is not "
                f"configured here; run: {schema.COMMAND}",
            ) from None
        log.info("schema.created", operator=operator(request), made=made)
        message = "created" if made else "already exists"
        return json_response(
            {
                "success": found.complete,
                "message": f"{schema.RELATION} {message}",
                "tables": found.tables,
                "indexes": found.indexes,
            }
        )

    async def relation(self, _: web.Request) -> web.Response:
        found = await self.schema.status()
        return json_response(
            {
                "exists": schema.RELATION in found.tables,
                "up_to_date": found.current,
                "tables": found.tables,
                "indexes": found.indexes,
            }
        )

    async def health(self, _: web.Request) -> web.Response:
        components: dict[str, dict[str, str]] = {}
        try:
            async with self.engine.connect() as tx:
                await queries.ping(tx)
            components["postgres"] = {"status": "healthy"}
        except Exception as error:
            if not postgres.is_transient(error):
                raise
            components["postgres"] = {"status": "unhealthy", "detail": type(error).__name__}
        connected = self.reconciler.broker_connected
        components["rabbitmq"] = {"status": "healthy" if connected else "unhealthy"}
        queues = await self.reconciler.depths()
        breakers = await self.target_status.now()
        not_closed = any(each["state"] != BreakerState.CLOSED for each in breakers.values())
        unhealthy = any(each["status"] == "unhealthy" for each in components.values())
        return json_response(
            {
                # Not unhealthy: without one of the two servers, intake works through the other.
                "status": "degraded" if unhealthy or not_closed else "healthy",
                "components": components,
                "circuit_breakers": breakers,
                "queues": queues,
            }
        )
