"""Asks consent for a permit, just before one marketing mail is sent (protocol B, step 2)."""

import asyncio
from collections import deque
from dataclasses import dataclass
from time import monotonic

from pydantic import ValidationError

from libs.common.messaging.rpc import NoReply, Requester
from libs.common.process.logs import log
from services.alerts import messages, metrics, topology
from services.alerts.messages import PermitAnswer
from services.alerts.rules.delivery import Claimed, Once

_SAMPLE_SECONDS = 0.25
_WINDOW_SECONDS = 5.0


class LoopLag:
    """How late the event loop runs due callbacks; a process that lags must not ask for a permit."""

    def __init__(self) -> None:
        self._worst = deque[tuple[float, float]](maxlen=41)

    @property
    def seconds(self) -> float:
        """The worst lag of the last five seconds."""
        horizon = monotonic() - _WINDOW_SECONDS
        return max((lag for at, lag in self._worst if at > horizon), default=0.0)

    async def watch(self) -> None:
        while True:
            due = monotonic() + _SAMPLE_SECONDS
            await asyncio.sleep(_SAMPLE_SECONDS)
            now = monotonic()
            self._worst.append((now, now - due))


@dataclass(frozen=True, eq=False)
class Permits:
    requester: Requester
    lag: LoopLag

    async def ask(
        self, job: Claimed, once: Once, *, seconds: float, margin: float
    ) -> PermitAnswer | None:
        """Ask for a permit for (message, attempt).

        :param seconds: to wait for the reply
        :param margin: seconds; with a loop lag above half of it, consent is not asked
        :returns: None without a reply in time. Not a denial: consent may have granted it, so
            the permit is to be returned
        """
        answer = None
        if self.lag.seconds > margin / 2:
            log.warning("permit.not_asked", lag=self.lag.seconds)
        else:
            try:
                body = await self.requester.ask(
                    topology.CONSENT_COMMANDS,
                    messages.PERMIT_REQUEST,
                    messages.PERMIT_REQUEST,
                    messages.permit_request(job.alert_id, job.attempt, once),
                    timeout=seconds,
                )
                answer = PermitAnswer.model_validate(body)
            except (NoReply, ValidationError) as error:
                log.warning("permit.no_answer", error=type(error).__name__)
        metrics.PERMITS.labels(answer.answer if answer else "none").inc()
        return answer
