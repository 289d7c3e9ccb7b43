"""Health of the whole, as one answer."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs

from libs.common.broker import Broker
from libs.common.web import Problem
from services.gateway.redis_pipe import RedisPipe
from services.gateway.upstream import Upstream

ANSWER_SECONDS = 2.0
KEPT_SECONDS = 0.5
"""One look serves all who ask meanwhile: anybody may ask, and a look costs every service work."""


class Health:
    def __init__(self, upstreams: Mapping[str, Upstream], redis: RedisPipe, broker: Broker) -> None:
        self._upstreams = upstreams
        self._redis = redis
        self._broker = broker
        self._looking = asyncio.Lock()
        self._seen: tuple[float, dict[str, Any]] = (float("-inf"), {})

    async def deep(self) -> dict[str, Any]:
        async with self._looking:
            if time.monotonic() - self._seen[0] > KEPT_SECONDS:
                self._seen = (time.monotonic(), await self._look())
            return self._seen[1]

    async def _look(self) -> dict[str, Any]:
        names = list(self._upstreams)
        found = await asyncio.gather(*(self._ask(self._upstreams[name]) for name in names))
        answers = dict(zip(names, found, strict=True))
        components: dict[str, Any] = {
            "redis": _state(up=self._redis.connected, else_="away: each process counts for itself"),
            "rabbitmq": _state(
                up=self._broker.connected and not self._broker.blocked,
                else_="away, or blocks publishers: alerts go to the service directly",
            ),
        }
        for name, answer in answers.items():
            kept = ("status", "detail", "components")
            components[name] = {field: answer[field] for field in kept if field in answer}
        return {
            "status": _overall(components),
            "components": components,
            "circuit_breakers": answers.get("alerts", {}).get("circuit_breakers", {}),
            "queues": answers.get("alerts", {}).get("queues", {}),
        }

    async def _ask(self, upstream: Upstream) -> dict[str, Any]:
        try:
            async with (
                upstream.ask(hdrs.METH_GET, "/health/deep", timeout=ANSWER_SECONDS) as response,
                asyncio.timeout(ANSWER_SECONDS),  # of an answer without end
            ):
                answer = json.loads(await response.read())
        except Problem as problem:
            return {"status": "unhealthy", "detail": problem.detail}
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "status" not in answer:
            return {"status": "unhealthy", "detail": "its health answer cannot be read"}
        return answer


def _state(*, up: bool, else_: str) -> dict[str, str]:
    return {"status": "healthy"} if up else {"status": "unhealthy", "detail": else_}


def _overall(components: Mapping[str, Mapping[str, Any]]) -> str:
    """Unhealthy only when alerts can be taken in neither way; else this gateway stays in use."""
    alerts = components["alerts"]
    ledger = alerts.get("components", {}).get("postgres", {})
    no_service = "unhealthy" in {alerts["status"], ledger.get("status")}
    if no_service and components["rabbitmq"]["status"] == "unhealthy":
        return "unhealthy"
    healthy = all(found["status"] == "healthy" for found in components.values())
    return "healthy" if healthy else "degraded"
