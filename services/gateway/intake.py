"""The two ways in which an accepted alert leaves the gateway (P2).

Through the broker, confirmed; else to the alerts service, which writes the ledger. Both carry the
same id, so an alert that went both ways is one alert. What neither confirms is unknown: 503.
"""

import asyncio
import json
from collections.abc import Sequence

from aiohttp import hdrs

from libs.common import logs
from libs.common.broker import Broker, BrokerUnavailable, PublishError
from libs.common.web import Problem
from services.gateway import metrics
from services.gateway.messages import AcceptedAlert, message
from services.gateway.upstream import Upstream

log = logs.get_logger(__name__)

EXCHANGE, ROUTING_KEY = "alerts", "alerts.intake"
INTERNAL_PATH = "/internal/alerts"
CONFIRM_SECONDS = 5.0
SERVICE_SECONDS = 10.0
IN_FLIGHT = 256
TOGETHER = 100
"""Alerts of a batch that share a message: its cost is the message's, not theirs."""


class Intake:
    def __init__(self, broker: Broker, alerts: Upstream) -> None:
        self._broker = broker
        self._alerts = alerts
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def accept(self, alerts: Sequence[AcceptedAlert], request_id: str) -> None:
        """Return when every alert is the broker's or the ledger's.

        :raises Problem: 503, some of them may be neither's
        """
        # Waiting for a slot included: behind a broker that has stalled, thousands do.
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
            return False  # health and metrics tell; a line per alert would not
        except PublishError as error:
            ids = [alert.id for alert in alerts]
            log.warning("intake.not_confirmed", alert_ids=ids, error=repr(error))
            return False
        finally:
            self._slots.release()
        return True

    async def _hand_over(self, alerts: Sequence[AcceptedAlert], request_id: str) -> None:
        # Without spaces: the service's body limit has room for our fields, not for those.
        body = json.dumps(
            {"alerts": [alert.body for alert in alerts]}, ensure_ascii=False, separators=(",", ":")
        )
        headers = {hdrs.CONTENT_TYPE: "application/json", "X-Request-ID": request_id}
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
        metrics.ALERTS_UNKNOWN.inc(len(alerts))
        raise Problem(
            503,
            detail="unknown: repeat with the same Idempotency-Key",
            headers={hdrs.RETRY_AFTER: "5"},
        )
