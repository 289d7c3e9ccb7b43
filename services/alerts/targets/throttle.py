"""Limits what is sent to one target: by its breaker, its pauses, its rate and its concurrency.

While the breaker is open, or the target asked for a pause, the consumer is cancelled and the queue
keeps its messages. Then exactly one message is taken for the trial, and after the breaker has
closed as many as the target's prefetch allows.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from libs.common.messaging.consumer import Consumer
from services.alerts.rules.delivery import BreakerState
from services.alerts.targets.breaker import Admission, Breaker

POLL_SECONDS = 0.5  # while waiting for a turn: whether messages are still taken


class Slots:
    """A semaphore whose size can change: urgent waiters first, otherwise in order of arrival."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._waiting = deque[asyncio.Future[None]](), deque[asyncio.Future[None]]()

    @property
    def taken(self) -> bool:
        return self._used >= self._size

    def resize(self, size: int) -> None:
        """Change the size; slots beyond it disappear as they are freed."""
        self._size = size
        self._hand_on()

    @asynccontextmanager
    async def taking_one(self, *, urgent: bool = False) -> AsyncIterator[None]:
        if self.taken:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting[not urgent].append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():  # the slot was handed to this waiter
                    self._free()
                raise
        else:  # so nobody waits
            self._used += 1
        try:
            yield
        finally:
            self._free()

    def _free(self) -> None:
        self._used -= 1
        self._hand_on()

    def _hand_on(self) -> None:
        # Counted here: otherwise whoever comes before the waiter runs would get its slot.
        while not self.taken and (waiting := self._waiting[0] or self._waiting[1]):
            waiter = waiting.popleft()
            if not waiter.done():
                self._used += 1
                waiter.set_result(None)


class Throttle:
    """Admits what may be sent now.

    :param per_minute: the target's own rate, for all replicas together; None: unlimited
    :param concurrency: for all replicas together, at least one for each
    """

    def __init__(
        self,
        breaker: Breaker,
        *,
        per_minute: float | None = None,
        concurrency: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.closed_again = asyncio.Event()  # the breaker has closed: the backlog may be released
        # They share the rate and the concurrency. 0: not known yet, and nothing is taken.
        self.replicas = 0
        self.slots = Slots(0)
        self.unreported_pause = 0.0  # seconds; the other processes do not know of it yet
        self.reached: datetime | None = None  # when the row that was claimed last had fallen due
        self._concurrency = concurrency
        self._breaker = breaker
        self._spacing = 60 / per_minute if per_minute else 0.0
        self._next_turn = 0.0
        self._turns = Slots(1)
        self._clock = clock
        self._state = breaker.state
        self._hold_until = 0.0
        self._changed = asyncio.Event()
        self._consumer: Consumer | None = None
        breaker.on_change = self._follow_breaker
        breaker.on_unused = self._return_turn

    @property
    def seconds_shut(self) -> float:
        """Seconds for which nothing is taken from now on; 0 while messages flow."""
        unknown = 0.0 if self.replicas else POLL_SECONDS
        return max(self._breaker.seconds_to_trial, self._hold_until - self._clock(), unknown)

    @property
    def taking(self) -> bool:
        """Whether messages are taken; False during a stop, a pause or a lost connection."""
        return self._consumer is None or self._consumer.consuming

    def hold(self, seconds: float) -> None:
        """Pause: the target asked us to slow down."""
        self._hold_until = max(self._hold_until, self._clock() + seconds)
        self.unreported_pause = max(self.unreported_pause, seconds)
        self._breaker.on_observation()
        self._changed.set()

    def reported(self, seconds: float) -> None:
        """Note that the other processes know of a pause of this many seconds."""
        if self.unreported_pause <= seconds:
            self.unreported_pause = 0.0

    def follow(self, paused: float, replicas: int) -> None:
        """Pause as long as any process was asked to, and use one share of the limits.

        :param paused: seconds
        """
        if not self.unreported_pause:
            self._hold_until = self._clock() + paused
        if replicas != self.replicas:
            self.replicas = replicas
            self.slots.resize(max(1, self._concurrency // replicas))
            self._changed.set()

    def release(self) -> None:
        """Forget a pause, for an operator."""
        self._hold_until = self.unreported_pause = 0.0
        self._changed.set()

    async def admit(self, *, urgent: bool = False) -> Admission | None:
        """Return the right to send one message; None when it is to be requeued.

        In that case the consumer is cancelled first, or RabbitMQ would redeliver the message at
        once.
        """
        if self._spacing:
            async with self._turns.taking_one(urgent=urgent):
                if not await self._wait_for_turn():
                    return None
        admission = self._breaker.admit() if self.seconds_shut == 0 else None
        if admission is None:
            self._return_turn()
            if self._consumer is not None:
                await self._consumer.pause()
        return admission

    async def _wait_for_turn(self) -> bool:
        """Wait for the next turn of the target's own rate.

        :returns: False when messages are no longer taken; no turn is used
        """
        turn = max(self._next_turn, self._clock())
        while (wait := turn - self._clock()) > 0 and self.seconds_shut == 0:
            if not self.taking:
                return False
            await asyncio.sleep(min(wait, POLL_SECONDS))
        self._next_turn = turn + self._spacing * self.replicas
        return True

    def _return_turn(self) -> None:
        """Give back a turn in which nothing was sent."""
        self._next_turn -= self._spacing * self.replicas

    async def run(self, consumer: Consumer) -> None:
        """Keep the consumer in step with the breaker and the pauses; runs until cancelled."""
        self._consumer = consumer
        while True:
            self._changed.clear()  # before looking: a change during it is seen in the next round
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
                    await self._changed.wait()

    def _follow_breaker(self, state: BreakerState) -> None:
        healed = state is BreakerState.CLOSED and self._state is not BreakerState.CLOSED
        if healed and not self._breaker.following:  # then the other process releases the backlog
            self.closed_again.set()
        self._state = state
        self._changed.set()
