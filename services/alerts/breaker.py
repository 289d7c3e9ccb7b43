"""One circuit breaker per target: aiobreaker counts and trips, what it lacks is added here.

aiobreaker 1.2.0 lets every concurrent caller through when half open, mixes naive UTC with local
time, counts an excluded error as a success and lets the late result of an old call reset or
prolong an opening. So no call runs inside it: a call asks `admit()`, runs on its own, and its
classified outcome is told to aiobreaker only when it still matters.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiobreaker
from aiobreaker.listener import CircuitBreakerListener

from libs.common import logs
from services.alerts import metrics
from services.alerts.alert import BreakerState as State
from services.alerts.alert import Kind

log = logs.get_logger(__name__)


_STATES = {
    aiobreaker.CircuitBreakerState.CLOSED: State.CLOSED,
    aiobreaker.CircuitBreakerState.OPEN: State.OPEN,
    aiobreaker.CircuitBreakerState.HALF_OPEN: State.HALF_OPEN,
}

# Everything else says nothing of the target's health: a refused payload, a full quota, a denied
# permit, a cancelled call. It neither trips nor heals.
_HEALTH = {Kind.DELIVERED: True, Kind.FAILED: False, Kind.UNKNOWN: False}


@dataclass(slots=True, eq=False)
class Admission:
    """The right to make one call, in the era of the breaker in which it was given."""

    era: int
    kind: Kind | None = None  # how it ended; None when it was never made, or was cancelled


class Breaker:
    def __init__(
        self,
        target: str,
        *,
        fail_max: int,
        reset_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self.on_change: Callable[[State], None] = lambda _: None
        self.on_unused: Callable[[], None] = lambda: None
        self.successes = 0  # that counted, since the start of the process
        self._reset_timeout = reset_timeout
        self._clock = clock
        self._era = 0
        self._probe: Admission | None = None
        self._opened_at = 0.0
        # Its own clock is never asked: it is called only while closed or half open.
        self._breaker = aiobreaker.CircuitBreaker(
            fail_max=fail_max, listeners=[_Listener(self)], name=target
        )
        metrics.breaker_state(target, State.CLOSED)

    @property
    def state(self) -> State:
        return _STATES[self._breaker.current_state]

    @property
    def failures(self) -> int:
        return int(self._breaker.fail_counter)

    @property
    def seconds_to_trial(self) -> float:
        """Seconds until a call may be tried; 0 unless open."""
        if self.state is not State.OPEN:
            return 0.0
        return max(0.0, self._opened_at + self._reset_timeout - self._clock())

    def admit(self) -> Admission | None:
        """Ask before a call; None means not now. Each admission is ended by `settle`."""
        if self.state is State.OPEN:
            if self.seconds_to_trial > 0:
                return None
            self._breaker.half_open()
        if self.state is State.HALF_OPEN:
            if self._probe is not None:
                return None
            self._probe = Admission(self._era)
            return self._probe
        return Admission(self._era)

    def holds(self, admission: Admission) -> bool:
        """Say whether a call may still be made on it: the breaker has not changed since."""
        return admission.era == self._era

    def settle(self, admission: Admission) -> None:
        """Count how an admitted call ended, if that still says something."""
        if admission.kind is None:
            self.on_unused()
        if not self.holds(admission):  # it began before the last change: an old truth
            return
        self._probe = None
        healthy = _HEALTH.get(admission.kind) if admission.kind is not None else None
        if healthy is None:
            self.on_change(self.state)  # nothing changed but that the next probe may go
            return
        self.successes += healthy
        # The trip wraps our own error in its own; the caller knows the real one.
        with suppress(_TargetFailedError, aiobreaker.CircuitBreakerError):
            self._breaker.call(_succeed if healthy else _fail)

    def reset(self) -> None:
        """Close it by hand."""
        if self.state is not State.CLOSED:
            self._breaker.close()

    def _state_changed(self, state: State) -> None:
        self._era += 1
        self._probe = None
        if state is State.OPEN:
            self._opened_at = self._clock()
        metrics.breaker_state(self.target, state)
        log.warning("breaker.changed", target=self.target, state=state, failures=self.failures)
        self.on_change(state)


class _TargetFailedError(Exception):
    pass


def _succeed() -> None:
    pass


def _fail() -> None:
    raise _TargetFailedError


class _Listener(CircuitBreakerListener):  # type: ignore[misc]  # the package ships no types
    def __init__(self, breaker: Breaker) -> None:
        self._ours = breaker

    def state_change(self, breaker: object, old: object, new: Any) -> None:  # noqa: ARG002
        # From the argument: the breaker itself still shows its old state here.
        self._ours._state_changed(_STATES[new.state])  # noqa: SLF001 - one thing in two classes
