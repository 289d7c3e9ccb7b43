"""One circuit breaker per target: aiobreaker counts and trips, and this adds what it lacks.

All processes share one breaker per target. Each reports to the database what it observed of the
target, and follows what the database then says (status.py). It also trips on its own, without
waiting for that. The half-open rule (when a trial is due, whose it is, what its end means) is in
`store/breakers.py`: `follow` takes over its decision, and `admit` turns that into one call.

aiobreaker 1.2.0 admits every concurrent caller when half open, mixes naive UTC with local time,
counts an excluded error as a success, and lets the late result of an old call reset or prolong an
opening. So no call runs inside it: a call asks `admit()`, runs on its own, and its classified
outcome is passed to aiobreaker only when it still matters.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiobreaker
from aiobreaker.listener import CircuitBreakerListener

from libs.common.process.logs import log
from services.alerts import metrics
from services.alerts.rules.delivery import HELD_TIMES, Kind
from services.alerts.rules.delivery import BreakerState as State
from services.alerts.store.breakers import TRIAL_SECONDS

POLL_SECONDS = 0.5  # until the database has said which process makes the trial
GRANT_SECONDS = TRIAL_SECONDS - 5.0
"""How long a trial stays this process's own without renewal: less than the database says."""
# Every other kind says nothing about the target's health: a refused payload, a full quota, a denied
# permit, a cancelled call. It neither trips nor heals.
_HEALTH = {Kind.DELIVERED: True, Kind.FAILED: False, Kind.UNKNOWN: False, Kind.HELD: False}


@dataclass(slots=True)
class Observations:
    """What a process has observed of a target since its last report."""

    healthy: bool = False  # a call succeeded
    failures: int = 0  # since that success
    trial: bool | None = None  # how this process's trial ended
    refused: str | None = None  # what the target said when it refused us, since that success


@dataclass(slots=True, eq=False)
class Admission:
    """The right to make one call, in the era of the breaker in which it was given."""

    era: int
    kind: Kind | None = None  # how the call ended; None: not made, or cancelled
    refusal: str | None = None  # with Kind.HELD: what the target said


class Breaker:
    def __init__(
        self,
        target: str,
        *,
        fail_max: int,
        reset_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a closed breaker.

        :param fail_max: failures in a row that open it
        :param reset_timeout: seconds from opening to the trial
        """
        self.target = target
        self.on_change: Callable[[State], None] = lambda _: None
        self.on_unused: Callable[[], None] = lambda: None
        self.on_observation: Callable[[], None] = lambda: None
        self.observations = Observations()
        self.following = False  # it is changing because another process's breaker changed
        self.fail_max = fail_max
        self.reset_timeout = reset_timeout
        self.era = 0
        self._clock = clock
        self._granted_until = 0.0
        self._probe: Admission | None = None
        self._trial_at = 0.0
        # aiobreaker's own clock is never used: it is called only while closed or half open.
        self._breaker = aiobreaker.CircuitBreaker(
            fail_max=fail_max, listeners=[_Listener(self)], name=target
        )
        metrics.breaker_state(target, State.CLOSED)

    @property
    def state(self) -> State:
        return State[self._breaker.current_state.name]

    @property
    def failures(self) -> int:
        return int(self._breaker.fail_counter)

    @property
    def seconds_to_trial(self) -> float:
        """Seconds until a call may be tried; 0 if closed, or once `follow` gave us the trial."""
        if self.state is State.CLOSED:
            return 0.0
        wait = 0.0 if self.state is State.HALF_OPEN else max(0.0, self._trial_at - self._clock())
        return wait if wait or self._clock() < self._granted_until else POLL_SECONDS

    @property
    def wants_trial(self) -> bool:
        """Whether its reset timeout is over, so that this process may make the trial."""
        return self.state is State.HALF_OPEN or (
            self.state is State.OPEN and self._trial_at <= self._clock()
        )

    def admit(self) -> Admission | None:
        """Return the right to make a call, or None: not now. End each admission with `record`."""
        if self.seconds_to_trial > 0:
            return None
        if self.state is State.OPEN:
            self._breaker.half_open()
        if self.state is State.HALF_OPEN:
            if self._probe is not None:
                return None
            self._probe = Admission(self.era)
            return self._probe
        return Admission(self.era)

    def unchanged_since(self, admission: Admission) -> bool:
        """Return whether a call may still be made on it: the breaker has not changed since."""
        return admission.era == self.era

    def record(self, admission: Admission) -> None:
        """Count how an admitted call ended, unless the breaker has changed since."""
        if admission.kind is None:
            self.on_unused()
        if not self.unchanged_since(
            admission
        ):  # it began before the last change, so it says nothing new
            return
        trial, self._probe = self._probe is not None, None
        healthy = _HEALTH.get(admission.kind) if admission.kind is not None else None
        if healthy is None:
            self.on_change(self.state)  # nothing has changed, but the next probe may go
            return
        if healthy:
            self.observations = Observations(healthy=True, trial=trial or None)
        else:
            self.observations.failures += 1
            self.observations.trial = False if trial else self.observations.trial
        if admission.kind is Kind.HELD:  # one refusal is enough
            self.observations.refused = admission.refusal
            self._breaker.open()
            self.on_observation()
            return
        # On a trip aiobreaker wraps our error in its own; the caller has the real one.
        with suppress(_TargetFailedError, aiobreaker.CircuitBreakerError):
            self._breaker.call(_ended, healthy)
        if trial or not healthy:
            self.on_observation()

    def follow(self, state: State, seconds: float, *, mine: bool) -> None:
        """Take over the state of the breaker that all processes share.

        :param seconds: until a trial may be made
        :param mine: this process makes the trial
        """
        self._granted_until = self._clock() + GRANT_SECONDS if mine else 0.0
        self.following = True
        try:
            if state is State.CLOSED:
                self.reset()
            elif not mine:
                if self.state is not State.OPEN:
                    self._breaker.open()
                self._trial_at = self._clock() + min(seconds, HELD_TIMES * self.reset_timeout)
            elif self.state is State.OPEN:
                self.on_change(self.state)  # nothing has changed, but the probe may go
        finally:
            self.following = False

    def reset(self) -> None:
        """Close it regardless of observations."""
        if self.state is not State.CLOSED:
            self._breaker.close()

    def _state_changed(self, state: State) -> None:
        self.era += 1
        self._probe = None
        if state is State.OPEN:
            self._trial_at = self._clock() + self.reset_timeout
            self._granted_until = 0.0
        metrics.breaker_state(self.target, state)
        log.warning("breaker.changed", target=self.target, state=state, failures=self.failures)
        self.on_change(state)


class _TargetFailedError(Exception):
    pass


def _ended(healthy: bool) -> None:  # noqa: FBT001 - aiobreaker calls it
    if not healthy:
        raise _TargetFailedError


class _Listener(CircuitBreakerListener):  # type: ignore[misc]  # the package ships no types
    def __init__(self, breaker: Breaker) -> None:
        self._ours = breaker

    def state_change(self, breaker: object, old: object, new: Any) -> None:  # noqa: ARG002
        # From the argument: the breaker itself still has its old state here.
        self._ours._state_changed(State[new.state.name])  # noqa: SLF001 - one thing in two classes
