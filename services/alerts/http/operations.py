"""Routes for operators: breakers, the ledger check, the schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import health
from libs.common.http.application import Problem, json_response
from libs.common.process.finding import Finding, say
from libs.common.process.logs import log
from libs.domain import acts_outbox
from libs.domain.acts import Act
from services.alerts.cases.on_call import Schedules
from services.alerts.http.common import admin, operator
from services.alerts.rules.delivery import BreakerState
from services.alerts.store import schema, subscriptions
from services.alerts.store.ledger import queries
from services.alerts.store.schema import NotOwner, Schema
from services.alerts.targets.status import TargetStatus
from services.alerts.targets.throttle import Throttle
from services.alerts.upkeep.ledger_check import LedgerCheck
from services.alerts.upkeep.reconcile import Reconciler


@dataclass(frozen=True, eq=False)
class OperationsRoutes:
    engine: AsyncEngine
    reconciler: Reconciler
    target_status: TargetStatus
    throttles: Mapping[str, Throttle]
    schema: Schema
    ledger_check: LedgerCheck
    schedules: Schedules

    def add_to(self, app: web.Application) -> None:
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
            await acts_outbox.add(tx, act)
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
                "success": found.current,
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

    async def health(self) -> dict[str, Any]:
        database, _ = await health.postgres(self.engine, lambda tx: queries.run(tx, "ping"))
        connected = self.reconciler.broker.connected
        breakers = await self.target_status.now()
        sound = (
            database["status"] == "healthy"
            and connected
            and all(
                each["state"] == BreakerState.CLOSED
                for name, each in breakers.items()
                if not subscriptions.is_one(name)  # whose receivers are others' programs
            )
        )
        return {
            # Not unhealthy: without one of the two servers, intake works through the other.
            "status": "healthy" if sound else "degraded",
            "components": {
                "postgres": database,
                "rabbitmq": {"status": "healthy" if connected else "unhealthy"},
            },
            "circuit_breakers": breakers,
            "queues": await self.reconciler.depths(),
        }

    async def findings(self) -> list[Finding]:
        """Name the targets that refuse us, and the faults and gaps of schedules."""
        found = []
        for name, breaker in (await self.target_status.now()).items():
            if isinstance(refused := breaker.get("paused"), str):
                settings = ", ".join(breaker.get("settings", ())) or f"[targets.{name}]"
                since = breaker.get("open_since")
                found.append(
                    say("target-refuses", name=name, why=refused, since=since, settings=settings)
                )
        for name, rota in sorted(self.schedules.rotas.items()):
            gap = self.schedules.gap(name, datetime.now(UTC)).total_seconds() / 3600
            what = "rota-fault" if rota.fault else "on-call-gap" if gap else "on-call"
            found.append(say(what, name=name, fault=rota.fault, hours=gap))
        return found
