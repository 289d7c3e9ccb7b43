"""Permission to hand one marketing mail over, asked of consent just before (protocol B, 2)."""

import asyncio
from time import monotonic

from pydantic import ValidationError

from libs.common import logs
from libs.common.requests import NoAnswer, Requester
from services.alerts import messages, metrics, topology
from services.alerts.alert import Claimed, Once
from services.alerts.messages import PermitAnswer

log = logs.get_logger(__name__)

_LOOK_SECONDS = 0.25
_REMEMBERED_SECONDS = 5.0


class LoopLag:
    """How late the event loop runs what is due; a process that stutters must ask for nothing."""

    def __init__(self) -> None:
        self._worst: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        horizon = monotonic() - _REMEMBERED_SECONDS
        self._worst = [(at, lag) for at, lag in self._worst if at > horizon]
        return max((lag for _, lag in self._worst), default=0.0)

    async def watch(self) -> None:
        while True:
            due = monotonic() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            now = monotonic()
            self._worst = [*self._worst[-40:], (now, now - due)]


class Permits:
    def __init__(self, requester: Requester, lag: LoopLag) -> None:
        self._requester = requester
        self._lag = lag

    async def ask(
        self, job: Claimed, once: Once, *, seconds: float, margin: float
    ) -> PermitAnswer | None:
        """Ask for (message, attempt); None when there is no answer in time.

        No answer is no denial: consent may have granted it, so the permit is to be returned.
        """
        answer = None
        if self._lag.seconds > margin / 2:
            log.warning("permit.not_asked", lag=self._lag.seconds)
        else:
            try:
                body = await self._requester.ask(
                    topology.CONSENT_COMMANDS,
                    messages.PERMIT_REQUEST,
                    messages.PERMIT_REQUEST,
                    messages.permit_request(job.alert_id, job.attempt, once),
                    timeout=seconds,
                )
                answer = PermitAnswer.model_validate(body)
            except (NoAnswer, ValidationError) as error:
                log.warning("permit.no_answer", error=type(error).__name__)
        metrics.PERMITS.labels(answer.answer if answer else "none").inc()
        return answer
