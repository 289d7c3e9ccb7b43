"""Passes a message to the broker, with a confirm, or to a service by HTTP (P2)."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from aiohttp import hdrs

from libs.common.http.application import CALLER, REQUEST_ID, Problem
from libs.common.messaging.broker import Broker, BrokerUnavailable, Message, PublishError
from libs.common.process.logs import log
from services.gateway.door.clients import Role
from services.gateway.proxy.upstream import Upstream

CONFIRM_SECONDS = 5.0
SERVICE_SECONDS = 10.0
IN_FLIGHT = 256


@dataclass(eq=False)
class Relayed:
    broker: Broker
    service: Upstream
    _: KW_ONLY
    exchange: str
    routing_key: str
    path: str
    """The service's path, for when the broker is unavailable."""

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    def deadline(self) -> float:
        """Return the time until which `publish` may wait, a slot included.

        Behind a stalled broker, thousands wait for a slot.
        """
        return asyncio.get_running_loop().time() + CONFIRM_SECONDS

    async def publish(self, message: Message, before: float) -> bool:
        """:returns: False, if the broker may not have it"""
        try:
            async with asyncio.timeout_at(before):
                await self._slots.acquire()
        except TimeoutError:
            return False
        try:
            left = before - asyncio.get_running_loop().time()
            await self.broker.publish(self.exchange, self.routing_key, message, timeout=left)
        except BrokerUnavailable:
            return False  # health and metrics show it
        except PublishError as error:
            log.warning(
                "handover.not_confirmed", type=message.type, id=message.id, error=repr(error)
            )
            return False
        finally:
            self._slots.release()
        return True

    async def hand_over(self, message: Message) -> Literal["broker", "service"]:
        """Return where the message went; raises as `post`."""
        if await self.publish(message, self.deadline()):
            return "broker"
        await self.post(message.body, message.request_id or "")
        return "service"

    async def post(self, body: Mapping[str, Any], request_id: str) -> None:
        """Give it to the service.

        :raises Problem: 503, the service may not have it either
        """
        # Compact: the service's body limit leaves no room for spaces.
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        headers = {
            hdrs.CONTENT_TYPE: "application/json",
            REQUEST_ID: request_id,
            CALLER: Role.SERVICE,
        }
        try:
            async with self.service.ask(
                hdrs.METH_POST,
                self.path,
                headers=headers,
                body=text.encode(),
                timeout=SERVICE_SECONDS,
            ) as answer:
                if answer.status == 202:
                    return
                fault = f"answered {answer.status}"
        except Problem as problem:
            fault = problem.detail or problem.title
        log.error("handover.unknown", path=self.path, fault=fault)
        raise Problem(
            503,
            detail="the outcome is unknown; repeat the request with the same Idempotency-Key",
            headers={hdrs.RETRY_AFTER: "5"},
        )
