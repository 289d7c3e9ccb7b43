"""Keeps a target's consumer in step with its breaker.

While the breaker is open, or the target asked for a pause, the consumer is cancelled and the
queue keeps its messages; then exactly one is taken for the trial; when the breaker has closed,
as many as the target has in hand. A target's own rate spaces what is admitted.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from libs.common.consume import Consumer
from services.alerts import metrics
from services.alerts.alert import BreakerState
from services.alerts.breaker import Admission, Breaker

LOOK_SECONDS = 0.5  # while waiting for a turn: is it still wanted?


class Valve:
    """Admits what may be sent now.

    :param per_minute: the target's own rate, of all replicas together; None: as it comes
    """

    def __init__(
        self,
        breaker: Breaker,
        *,
        per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.closed_again = asyncio.Event()  # the breaker healed: what waits may be brought forward
        self.replicas = 1  # among which the rate is divided
        self._breaker = breaker
        self._spacing = 60 / per_minute if per_minute else 0.0
        self._next_turn = 0.0
        self._clock = clock
        self._seen = breaker.state
        self._hold_until = 0.0
        self._stirred = asyncio.Event()
        self._consumer: Consumer | None = None
        breaker.on_change = self._changed
        breaker.on_unused = self._return_turn

    @property
    def seconds_shut(self) -> float:
        """How long nothing is taken from now on; 0 when it flows."""
        return max(self._breaker.seconds_to_trial, self._hold_until - self._clock(), 0.0)

    @property
    def taking(self) -> bool:
        """Whether messages are taken; not so at a stop, a pause, a lost connection."""
        return self._consumer is None or self._consumer.consuming

    def hold(self, seconds: float) -> None:
        """Take nothing for a while: the target asked us to slow down."""
        self._hold_until = max(self._hold_until, self._clock() + seconds)
        self._stirred.set()

    def release(self) -> None:
        """Forget a pause: somebody knows better."""
        self._hold_until = 0.0
        self._stirred.set()

    async def admit(self) -> Admission | None:
        """Return the right to try; None when the message is to be given back.

        Then the consumer is cancelled first, or RabbitMQ would hand the message out again at once.
        """
        if self._spacing and not await self._turn():
            return None
        admission = self._breaker.admit() if self.seconds_shut == 0 else None
        if admission is None:
            self._return_turn()
            if self._consumer is not None:
                await self._consumer.pause()
        return admission

    async def _turn(self) -> bool:
        """Wait for a turn of the target's own rate: first come, first served.

        :returns: False when nothing is taken any more (a stop, a lost connection): no turn is used
        """
        asked_at = self._clock()
        turn = max(self._next_turn, asked_at)
        self._next_turn = turn + self._spacing * self.replicas
        while (wait := turn - self._clock()) > 0 and self.seconds_shut == 0:
            if not self.taking:
                self._return_turn()
                return False
            await asyncio.sleep(min(wait, LOOK_SECONDS))
        metrics.TURN_SECONDS.labels(self._breaker.target).inc(self._clock() - asked_at)
        return True

    def _return_turn(self) -> None:
        """Nothing was sent in it."""
        self._next_turn -= self._spacing * self.replicas

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
