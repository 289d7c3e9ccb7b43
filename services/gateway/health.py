"""The health of the whole system, in one answer."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs

from libs.common.database.redis_pipeline import RedisPipeline
from libs.common.http.application import Problem
from libs.common.messaging.broker import Broker
from libs.common.surroundings import Check
from services.gateway.proxy.key_sync import KeySync
from services.gateway.proxy.upstream import Upstream

ANSWER_SECONDS = 2.0
FINDINGS = "findings"
FINDINGS_SECONDS = 20.0
KEPT_SECONDS = 0.5
STALE_SECONDS = 10.0
NAMED = ("circuit_breakers", "queues")
"""The parts of the answer that name targets."""


@dataclass(eq=False)
class Health:
    upstreams: Mapping[str, Upstream]
    redis: RedisPipeline
    broker: Broker
    keys: KeySync | None
    around: Check

    def __post_init__(self) -> None:
        self._looking: asyncio.Task[None] | None = None
        self._seen: dict[str, Any] = {}
        self._seen_at = float("-inf")

    async def deep(self, *, named: bool) -> dict[str, Any]:
        """Query the components, one query at a time; calls during a query get the last result.

        :param named: include the parts that name targets: breakers and queues
        """
        age = time.monotonic() - self._seen_at
        looking = self._looking is not None and not self._looking.done()
        if not looking and age > KEPT_SECONDS:
            self._looking = asyncio.create_task(self._look())
        if self._looking is not None and (not looking or age > STALE_SECONDS):
            await asyncio.shield(self._looking)
        return {name: each for name, each in self._seen.items() if named or name not in NAMED}

    async def thorough(self) -> dict[str, Any]:
        """Query now, with what this process and each service find wrong around them."""
        own, answers = await asyncio.gather(
            self.around(), self._answers(f"?{FINDINGS}=yes", FINDINGS_SECONDS)
        )
        found = self._found(answers)
        found[FINDINGS] = [*own, *(f for each in answers.values() for f in each.get(FINDINGS, ()))]
        return found

    async def _answers(self, query: str, seconds: float) -> dict[str, dict[str, Any]]:
        every = (self._ask(upstream, query, seconds) for upstream in self.upstreams.values())
        return dict(zip(self.upstreams, await asyncio.gather(*every), strict=True))

    async def _look(self) -> None:
        self._seen = self._found(await self._answers("", ANSWER_SECONDS))
        self._seen_at = time.monotonic()

    def _found(self, answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        components: dict[str, Any] = {
            "redis": _state(
                up=self.redis.connected, else_="unavailable: each process counts on its own"
            ),
            "rabbitmq": _state(
                up=self.broker.connected and not self.broker.blocked,
                else_="unavailable or blocking publishers: alerts go to the service directly",
            ),
        }
        if self.keys is not None:
            components["keys"] = self.keys.state()
        for name, answer in answers.items():
            kept = ("status", "detail", "components")
            components[name] = {field: answer[field] for field in kept if field in answer}
        return {
            "status": _overall(components),
            "components": components,
            "circuit_breakers": answers.get("alerts", {}).get("circuit_breakers", {}),
            "queues": answers.get("alerts", {}).get("queues", {}),
        }

    async def _ask(self, upstream: Upstream, query: str, seconds: float) -> dict[str, Any]:
        try:
            async with (
                upstream.ask(hdrs.METH_GET, f"/health/deep{query}", timeout=seconds) as response,
                asyncio.timeout(seconds),  # of an endless response
            ):
                answer = json.loads(await response.read())
        except Problem as problem:
            return {"status": "unhealthy", "detail": problem.detail}
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "status" not in answer:
            return {"status": "unhealthy", "detail": "its health response is invalid"}
        return answer


def _state(*, up: bool, else_: str) -> dict[str, str]:
    return {"status": "healthy"} if up else {"status": "unhealthy", "detail": else_}


def _overall(components: Mapping[str, Mapping[str, Any]]) -> str:
    """Unhealthy only if alerts can be accepted by neither route; else the gateway stays in use."""
    alerts = components["alerts"]
    ledger = alerts.get("components", {}).get("postgres", {})
    no_service = "unhealthy" in {alerts["status"], ledger.get("status")}
    if no_service and components["rabbitmq"]["status"] == "unhealthy":
        return "unhealthy"
    healthy = all(found["status"] == "healthy" for found in components.values())
    return "healthy" if healthy else "degraded"
