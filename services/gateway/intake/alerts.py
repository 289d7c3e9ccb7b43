"""Passes on accepted alerts (P2); their shape is in messages.py.

Both routes use the same id, so an alert that takes both is one alert. If neither confirms it: 503.

Alerts that arrive while MESSAGES messages wait for their confirms leave together in the next one:
the cost is per message, not per alert.
"""

import asyncio
import secrets
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from libs.common.http.application import Problem
from libs.common.messaging.broker import Broker
from services.gateway import metrics
from services.gateway.intake.messages import AcceptedAlert, message
from services.gateway.intake.relayed import Relayed
from services.gateway.proxy.upstream import Upstream

EXCHANGE, ROUTING_KEY = "alerts", "alerts.intake"
INTERNAL_PATH = "/internal/alerts"
MESSAGES = 4
TOGETHER = 100
TOGETHER_BYTES = 256 * 1024
"""The bound of a message, unless a single request is larger (P7)."""
MOST_UNUSED = 100
"""Ranges; a number that is forgotten here looks like a lost alert."""


class _Part(NamedTuple):
    """Alerts of one request that stay together."""

    alerts: Sequence[AcceptedAlert]
    size: int
    confirmed: asyncio.Future[bool]


class Intake:
    def __init__(self, broker: Broker, alerts: Upstream) -> None:
        self._relayed = Relayed(
            broker, alerts, exchange=EXCHANGE, routing_key=ROUTING_KEY, path=INTERNAL_PATH
        )
        self._numbers = Numbers()
        self._waiting: deque[_Part] = deque()
        self._publishing: set[asyncio.Task[None]] = set()

    async def accept(self, alerts: Sequence[AcceptedAlert], request_id: str, size: int) -> None:
        """Return when every alert is in the broker or the ledger.

        :param size: about how many bytes all of them have
        :raises Problem: 503, some of them may be in neither
        """
        with self._numbers.given(alerts):
            await self._accept(alerts, request_id, size)

    async def _accept(self, alerts: Sequence[AcceptedAlert], request_id: str, size: int) -> None:
        before = self._relayed.deadline()
        parts = [alerts[start : start + TOGETHER] for start in range(0, len(alerts), TOGETHER)]
        confirmed = await asyncio.gather(
            *(self._publish(part, size * len(part) // len(alerts), before) for part in parts)
        )
        rest = [
            alert for part, done in zip(parts, confirmed, strict=True) if not done for alert in part
        ]
        metrics.ALERTS_ACCEPTED.labels("broker").inc(len(alerts) - len(rest))
        if rest:
            try:
                await self._relayed.post({"alerts": [alert.body for alert in rest]}, request_id)
            except Problem:
                metrics.ALERTS_UNCONFIRMED.inc(len(rest))
                raise
            metrics.ALERTS_ACCEPTED.labels("service").inc(len(rest))

    async def _publish(self, alerts: Sequence[AcceptedAlert], size: int, before: float) -> bool:
        """:returns: False, if the broker may not have them"""
        loop = asyncio.get_running_loop()
        part = _Part(alerts, size, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._send)  # with what else arrives in this turn of the loop
        self._waiting.append(part)
        try:
            async with asyncio.timeout_at(before):
                return await part.confirmed
        except TimeoutError:
            return False

    def _send(self) -> None:
        while self._waiting and len(self._publishing) < MESSAGES:
            task = asyncio.create_task(self._send_together(self._next()), name="intake")
            self._publishing.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._publishing.discard(task)
        self._send()

    def _next(self) -> list[_Part]:
        """Take the parts of the next message: at least one, and no more than the bounds allow."""
        parts: list[_Part] = []
        count = size = 0
        while self._waiting:
            count += len(self._waiting[0].alerts)
            size += self._waiting[0].size
            if parts and (count > TOGETHER or size > TOGETHER_BYTES):
                break
            parts.append(self._waiting.popleft())
        return parts

    async def _send_together(self, parts: Sequence[_Part]) -> None:
        parts = [part for part in parts if not part.confirmed.done()]  # the others gave up
        alerts = [alert for part in parts for alert in part.alerts]
        confirmed = False
        try:
            if alerts:
                sent = message(alerts)
                confirmed = await self._relayed.publish(sent, self._relayed.deadline())
        finally:
            for part in parts:
                if not part.confirmed.done():
                    part.confirmed.set_result(confirmed)


class Numbers:
    """Running numbers of the alerts that this process passes on: a gap shows what never came."""

    def __init__(self) -> None:
        self.sender = f"{socket.gethostname()[:60]} {secrets.token_hex(8)}"
        self._last = 0
        self._unused: list[tuple[int, int]] = []

    @contextmanager
    def given(self, alerts: Sequence[AcceptedAlert]) -> Iterator[None]:
        """Number the alerts of a request while they are passed on.

        On an error nobody is answered 202: a later alert says that these numbers are not used.
        """
        first, told = self._last + 1, self._unused
        self._last, self._unused = self._last + len(alerts), []
        for number, alert in enumerate(alerts, first):
            alert.body["numbered"] = {"sender": self.sender, "number": number}
        if told:
            alerts[0].body["numbered"]["unused"] = told
        try:
            yield
        except BaseException:
            mine = (first, first + len(alerts) - 1)
            self._unused = _merged([*self._unused, *told, mine])[-MOST_UNUSED:]
            raise


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and merged[-1][1] + 1 >= first:
            merged[-1] = merged[-1][0], last
        else:
            merged.append((first, last))
    return merged
