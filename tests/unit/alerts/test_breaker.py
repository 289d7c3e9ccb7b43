import asyncio
import time

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


def call(subject: Breaker, kind: Kind | None) -> None:
    admission = subject.admit()
    assert admission is not None
    end(subject, admission, kind)


def end(subject: Breaker, admission: Admission, kind: Kind | None) -> None:
    admission.kind = kind
    subject.record(admission)


def tripped(clock: Clock) -> Breaker:
    subject = breaker(clock)
    for _ in range(3):
        call(subject, Kind.FAILED)
    assert subject.state is BreakerState.OPEN
    return subject


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def due(clock: Clock) -> Breaker:
    """Return an open breaker whose trial is due."""
    subject = tripped(clock)
    clock.now += 60
    return subject


def test_consecutive_failures_open_it_and_a_success_resets_the_count() -> None:
    subject = breaker(Clock())
    for kind in (Kind.FAILED, Kind.UNKNOWN, Kind.DELIVERED, Kind.FAILED, Kind.FAILED):
        call(subject, kind)
    before = subject.state
    call(subject, Kind.FAILED)
    assert (before, subject.state) == (BreakerState.CLOSED, BreakerState.OPEN)


def test_an_open_breaker_admits_no_call_before_its_time(clock: Clock) -> None:
    subject = tripped(clock)
    clock.now += 59.9
    assert subject.admit() is None
    assert 0 < subject.seconds_to_trial <= 0.2
    clock.now += 0.2
    assert subject.admit() is not None
    assert subject.state is BreakerState.HALF_OPEN


def test_a_half_open_breaker_admits_exactly_one_call(due: Breaker) -> None:
    assert len([one for one in (due.admit() for _ in range(100)) if one is not None]) == 1


def test_a_failed_trial_opens_it_for_the_whole_time(due: Breaker) -> None:
    call(due, Kind.FAILED)
    assert due.state is BreakerState.OPEN
    assert due.seconds_to_trial == 60


def test_a_successful_trial_closes_it(due: Breaker) -> None:
    call(due, Kind.DELIVERED)
    assert due.state is BreakerState.CLOSED
    assert due.failures == 0


def test_a_neutral_outcome_neither_trips_nor_heals(clock: Clock) -> None:
    subject = breaker(clock)
    for kind in (Kind.FAILED, Kind.FAILED, Kind.NEVER, Kind.LATER, None):
        call(subject, kind)
    assert subject.failures == 2
    call(subject, Kind.FAILED)
    clock.now += 60
    for kind in (Kind.NEVER, Kind.LATER, None):
        call(subject, kind)  # each was the one trial, and let the next one try
        assert subject.state is BreakerState.HALF_OPEN
    call(subject, Kind.DELIVERED)
    assert subject.state is BreakerState.CLOSED


def test_results_from_before_the_trip_change_nothing(clock: Clock) -> None:
    subject = breaker(clock)
    early = [subject.admit() for _ in range(6)]
    for admission in early[:3]:
        assert admission is not None
        end(subject, admission, Kind.FAILED)
    opened_until = subject.seconds_to_trial
    clock.now += 10
    for admission, kind in zip(early[3:], (Kind.DELIVERED, Kind.FAILED, None), strict=True):
        assert admission is not None
        end(subject, admission, kind)
        assert subject.state is BreakerState.OPEN
    assert subject.seconds_to_trial == opened_until - 10
    clock.now += 50
    trial = subject.admit()
    assert trial is not None
    assert subject.admit() is None


def test_a_late_result_does_not_end_anothers_trial(clock: Clock) -> None:
    subject = breaker(clock)
    late = subject.admit()
    assert late is not None
    for _ in range(3):
        call(subject, Kind.FAILED)
    clock.now += 60
    trial = subject.admit()
    assert trial is not None
    end(subject, late, Kind.DELIVERED)
    assert subject.state is BreakerState.HALF_OPEN
    assert subject.admit() is None


def test_a_manual_reset_closes_it_and_ignores_the_trial_in_flight(due: Breaker) -> None:
    trial = due.admit()
    assert trial is not None
    due.reset()
    end(due, trial, Kind.FAILED)
    assert (due.state, due.failures) == (BreakerState.CLOSED, 0)


def test_every_state_change_is_reported_once_and_in_order(clock: Clock) -> None:
    subject = breaker(clock)
    states: list[BreakerState] = []
    subject.on_change = states.append
    for _ in range(3):
        call(subject, Kind.FAILED)
    clock.now += 60
    call(subject, Kind.DELIVERED)
    assert states == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]


@pytest.mark.parametrize("zone", ["Europe/Warsaw", "America/Anchorage", "UTC"])
def test_its_times_do_not_depend_on_the_time_zone(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        clock = Clock()
        subject = tripped(clock)
        assert subject.seconds_to_trial == 60
        clock.now += 60
        call(subject, Kind.FAILED)
        assert subject.seconds_to_trial == 60
        clock.now += 60
        call(subject, Kind.DELIVERED)
        assert subject.state is BreakerState.CLOSED
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_a_cancelled_call_is_not_counted_and_allows_the_next_trial(due: Breaker) -> None:

    async def trial() -> None:
        admission = due.admit()
        assert admission is not None
        try:
            await asyncio.Event().wait()  # a target that hangs
            admission.kind = Kind.DELIVERED
        finally:
            due.record(admission)

    task = asyncio.create_task(trial())
    await asyncio.sleep(0)
    assert due.admit() is None
    task.cancel()
    await asyncio.wait([task])
    assert (due.state, due.failures) == (BreakerState.HALF_OPEN, 3)
    assert due.admit() is not None


def test_only_a_counted_success_is_observed(clock: Clock) -> None:
    subject = breaker(clock)
    late = subject.admit()
    assert late is not None
    for kind in (Kind.DELIVERED, Kind.NEVER, Kind.FAILED, Kind.FAILED, Kind.FAILED):
        call(subject, kind)
    end(subject, late, Kind.DELIVERED)
    assert subject.observations == Observations(healthy=True, failures=3)


def test_a_shared_breaker_makes_only_its_own_trial(clock: Clock) -> None:
    subject = Breaker("slack", fail_max=1, reset_timeout=60, clock=clock, shared=True)
    call(subject, Kind.FAILED)
    clock.now += 60
    assert subject.wants_trial
    assert subject.admit() is None
    subject.follow(BreakerState.HALF_OPEN, 15, mine=False)
    assert subject.admit() is None
    clock.now += 60
    subject.follow(BreakerState.HALF_OPEN, 15, mine=True)
    clock.now += GRANT_SECONDS  # frozen for so long: the trial may be another's by now
    assert subject.admit() is None
    subject.follow(BreakerState.HALF_OPEN, 15, mine=True)
    trial = subject.admit()
    assert trial is not None
    assert subject.admit() is None
    end(subject, trial, Kind.DELIVERED)
    assert (subject.state, subject.observations) == (
        BreakerState.CLOSED,
        Observations(healthy=True, trial=True),
    )
