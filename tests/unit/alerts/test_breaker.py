"""What of one process counts; test_target_status.py has what several do together."""

import pytest

from services.alerts.rules.delivery import BreakerState, Kind
from services.alerts.targets.breaker import GRANT_SECONDS, Admission, Breaker, Observations


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock, fail_max: int = 3) -> Breaker:
    return Breaker("slack", fail_max=fail_max, reset_timeout=60, clock=clock)


def admitted(subject: Breaker) -> Admission:
    admission = subject.admit()
    assert admission is not None
    return admission


def call(subject: Breaker, kind: Kind | None) -> None:
    end(subject, admitted(subject), kind)


def end(subject: Breaker, admission: Admission, kind: Kind | None) -> None:
    admission.kind = kind
    subject.record(admission)


def tripped(clock: Clock) -> Breaker:
    subject = breaker(clock)
    for _ in range(3):
        call(subject, Kind.FAILED)
    assert subject.state is BreakerState.OPEN
    return subject


def grant(subject: Breaker) -> None:
    subject.follow(BreakerState.HALF_OPEN, 15, mine=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_neutral_outcome_neither_trips_nor_heals(clock: Clock) -> None:
    subject = breaker(clock)
    for kind in (Kind.FAILED, Kind.FAILED, Kind.NEVER, Kind.LATER, None):
        call(subject, kind)
    assert subject.failures == 2
    call(subject, Kind.FAILED)
    clock.now += 60
    grant(subject)
    for kind in (Kind.NEVER, Kind.LATER, None):
        call(subject, kind)  # each was the one trial, and let the next one try
        assert subject.state is BreakerState.HALF_OPEN
    call(subject, Kind.DELIVERED)
    assert subject.state is BreakerState.CLOSED


def test_results_from_before_the_trip_change_nothing(clock: Clock) -> None:
    subject = breaker(clock)
    early = [admitted(subject) for _ in range(6)]
    for admission in early[:3]:
        end(subject, admission, Kind.FAILED)
    opened_until = subject.seconds_to_trial
    clock.now += 10
    for admission, kind in zip(early[3:], (Kind.DELIVERED, Kind.FAILED, None), strict=True):
        end(subject, admission, kind)
        assert subject.state is BreakerState.OPEN
    assert subject.seconds_to_trial == opened_until - 10
    assert subject.admit() is None
    clock.now += 50
    grant(subject)
    admitted(subject)
    assert subject.admit() is None


def test_a_late_result_does_not_end_anothers_trial(clock: Clock) -> None:
    subject = breaker(clock)
    late = admitted(subject)
    for _ in range(3):
        call(subject, Kind.FAILED)
    clock.now += 60
    grant(subject)
    admitted(subject)
    end(subject, late, Kind.DELIVERED)
    assert subject.state is BreakerState.HALF_OPEN
    assert subject.admit() is None


def test_a_manual_reset_closes_it_and_ignores_the_trial_in_flight(clock: Clock) -> None:
    subject = tripped(clock)
    clock.now += 60
    grant(subject)
    trial = admitted(subject)
    subject.reset()
    end(subject, trial, Kind.FAILED)
    assert (subject.state, subject.failures) == (BreakerState.CLOSED, 0)


def test_only_a_counted_success_is_observed(clock: Clock) -> None:
    subject = breaker(clock)
    late = admitted(subject)
    for kind in (Kind.DELIVERED, Kind.NEVER, Kind.FAILED, Kind.FAILED, Kind.FAILED):
        call(subject, kind)
    end(subject, late, Kind.DELIVERED)
    assert subject.observations == Observations(healthy=True, failures=3)


def test_a_process_makes_only_its_own_trial(clock: Clock) -> None:
    subject = Breaker("slack", fail_max=1, reset_timeout=60, clock=clock)
    call(subject, Kind.FAILED)
    clock.now += 60
    assert subject.wants_trial
    assert subject.admit() is None
    subject.follow(BreakerState.HALF_OPEN, 15, mine=False)
    assert subject.admit() is None
    clock.now += 60
    grant(subject)
    clock.now += GRANT_SECONDS  # frozen for so long: the trial may be another's by now
    assert subject.admit() is None
    grant(subject)
    trial = admitted(subject)
    assert subject.admit() is None
    end(subject, trial, Kind.DELIVERED)
    assert (subject.state, subject.observations) == (
        BreakerState.CLOSED,
        Observations(healthy=True, trial=True),
    )
