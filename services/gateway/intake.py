"""Hands over an accepted alert by one of two paths (P2); its shape is in messages.py.

Through the broker, confirmed; otherwise to the alerts service, which writes the ledger. Both carry
the same id, so an alert that takes both paths is one alert. If neither confirms it: 503.
"""

import asyncio
import json
from collections.abc import Sequence

from aiohttp import hdrs

from libs.common.http.application import CALLER, REQUEST_ID, Problem
from libs.common.messaging.broker import Broker, BrokerUnavailable, PublishError
from libs.common.process import logs
from services.gateway import metrics
from services.gateway.clients import Role
from services.gateway.messages import AcceptedAlert, message
from services.gateway.upstream import Upstream

log = logs.get_logger(__name__)

EXCHANGE, ROUTING_KEY = "alerts", "alerts.intake"
INTERNAL_PATH = "/internal/alerts"
CONFIRM_SECONDS = 5.0
SERVICE_SECONDS = 10.0
IN_FLIGHT = 256
TOGETHER = 100
"""Alerts of a batch per message: the cost is per message, not per alert."""


class Intake:
    def __init__(self, broker: Broker, alerts: Upstream) -> None:
        self._broker = broker
        self._alerts = alerts
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def accept(self, alerts: Sequence[AcceptedAlert], request_id: str) -> None:
        """Return when every alert is in the broker or the ledger.

        :raises Problem: 503, some of them may be in neither
        """
        # Includes waiting for a slot: behind a stalled broker, thousands wait.
        before = asyncio.get_running_loop().time() + CONFIRM_SECONDS
        parts = [alerts[start : start + TOGETHER] for start in range(0, len(alerts), TOGETHER)]
        confirmed = await asyncio.gather(
            *(self._publish(part, request_id, before) for part in parts)
        )
        rest = [
            alert for part, done in zip(parts, confirmed, strict=True) if not done for alert in part
        ]
        metrics.ALERTS_ACCEPTED.labels("broker").inc(len(alerts) - len(rest))
        if rest:
            await self._hand_over(rest, request_id)
            metrics.ALERTS_ACCEPTED.labels("service").inc(len(rest))

    async def _publish(
        self, alerts: Sequence[AcceptedAlert], request_id: str, before: float
    ) -> bool:
        try:
            async with asyncio.timeout_at(before):
                await self._slots.acquire()
        except TimeoutError:
            return False
        try:
            left = before - asyncio.get_running_loop().time()
            sent = message(alerts, request_id)
            await self._broker.publish(EXCHANGE, ROUTING_KEY, sent, timeout=left)
        except BrokerUnavailable:
            return False  # health and metrics show it
        except PublishError as error:
            ids = [alert.id for alert in alerts]
            log.warning("intake.not_confirmed", alert_ids=ids, error=repr(error))
            return False
        finally:
            self._slots.release()
        return True

    async def _hand_over(self, alerts: Sequence[AcceptedAlert], request_id: str) -> None:
        # Compact: the service's body limit leaves no room for spaces.
        body = json.dumps(
            {"alerts": [alert.body for alert in alerts]}, ensure_ascii=False, separators=(",", ":")
        )
        headers = {
            hdrs.CONTENT_TYPE: "application/json",
            REQUEST_ID: request_id,
            CALLER: Role.SERVICE,
        }
        try:
            async with self._alerts.ask(
                hdrs.METH_POST,
                INTERNAL_PATH,
                headers=headers,
                body=body.encode(),
                timeout=SERVICE_SECONDS,
            ) as answer:
                if answer.status == 202:
                    return
                fault = f"answered {answer.status}"
        except Problem as problem:
            fault = problem.detail or problem.title
        log.error("intake.unknown", alerts=len(alerts), fault=fault)
        metrics.ALERTS_UNCONFIRMED.inc(len(alerts))
        raise Problem(
            503,
            detail="the outcome is unknown; repeat the request with the same Idempotency-Key",
            headers={hdrs.RETRY_AFTER: "5"},
        )
