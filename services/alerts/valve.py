"""Keeps a target's consumer in step with its breaker.

While the breaker is open, or the target asked for a pause, the consumer is cancelled and the
queue keeps its messages; then exactly one is taken for the trial; when the breaker has closed,
as many as the target's concurrency allows.
"""

import asyncio
import time
from contextlib import suppress

from libs.common.consume import Consumer
from services.alerts.alert import BreakerState
from services.alerts.breaker import Admission, Breaker


class Valve:
    def __init__(self, breaker: Breaker) -> None:
        self.closed_again = asyncio.Event()  # the breaker healed: what waits may be brought forward
        self._breaker = breaker
        self._seen = breaker.state
        self._hold_until = 0.0
        self._stirred = asyncio.Event()
        self._consumer: Consumer | None = None
        breaker.on_change = self._changed

    @property
    def seconds_shut(self) -> float:
        """How long nothing is taken from now on; 0 when it flows."""
        return max(self._breaker.seconds_to_trial, self._hold_until - time.monotonic(), 0.0)

    def hold(self, seconds: float) -> None:
        """Take nothing for a while: the target asked us to slow down."""
        self._hold_until = max(self._hold_until, time.monotonic() + seconds)
        self._stirred.set()

    def release(self) -> None:
        """Forget a pause: somebody knows better."""
        self._hold_until = 0.0
        self._stirred.set()

    async def admit(self) -> Admission | None:
        """Return the right to try; None when the message is to be given back.

        Then the consumer is cancelled first, or RabbitMQ would hand the message out again at once.
        """
        admission = self._breaker.admit() if self.seconds_shut == 0 else None
        if admission is None and self._consumer is not None:
            await self._consumer.pause()
        return admission

    async def run(self, consumer: Consumer) -> None:
        self._consumer = consumer
        while True:
            self._stirred.clear()  # before looking: what changes meanwhile is seen next time
            wait: float | None = None
            if (shut := self.seconds_shut) > 0:
                await consumer.pause()
                wait = shut
            elif self._breaker.state is BreakerState.CLOSED:
                await consumer.resume()
            else:
                await consumer.resume(prefetch=1)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stirred.wait()

    def _changed(self, state: BreakerState) -> None:
        if state is BreakerState.CLOSED and self._seen is not BreakerState.CLOSED:
            self.closed_again.set()
        self._seen = state
        self._stirred.set()
