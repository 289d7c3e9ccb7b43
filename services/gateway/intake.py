"""Hands over accepted alerts (P2); their shape is in messages.py.

Both ways carry the same id, so an alert that takes both is one alert. If neither confirms it: 503.
"""

import asyncio
from collections.abc import Sequence

from libs.common.http.application import Problem
from libs.common.messaging.broker import Broker
from services.gateway import metrics
from services.gateway.handover import Handover
from services.gateway.messages import AcceptedAlert, message
from services.gateway.upstream import Upstream

EXCHANGE, ROUTING_KEY = "alerts", "alerts.intake"
INTERNAL_PATH = "/internal/alerts"
TOGETHER = 100
"""Alerts of a batch per message: the cost is per message, not per alert."""


class Intake:
    def __init__(self, broker: Broker, alerts: Upstream) -> None:
        self._handover = Handover(
            broker, alerts, exchange=EXCHANGE, routing_key=ROUTING_KEY, path=INTERNAL_PATH
        )

    async def accept(self, alerts: Sequence[AcceptedAlert], request_id: str) -> None:
        """Return when every alert is in the broker or the ledger.

        :raises Problem: 503, some of them may be in neither
        """
        before = self._handover.deadline()
        parts = [alerts[start : start + TOGETHER] for start in range(0, len(alerts), TOGETHER)]
        confirmed = await asyncio.gather(
            *(self._handover.publish(message(part, request_id), before) for part in parts)
        )
        rest = [
            alert for part, done in zip(parts, confirmed, strict=True) if not done for alert in part
        ]
        metrics.ALERTS_ACCEPTED.labels("broker").inc(len(alerts) - len(rest))
        if rest:
            try:
                await self._handover.post({"alerts": [alert.body for alert in rest]}, request_id)
            except Problem:
                metrics.ALERTS_UNCONFIRMED.inc(len(rest))
                raise
            metrics.ALERTS_ACCEPTED.labels("service").inc(len(rest))
