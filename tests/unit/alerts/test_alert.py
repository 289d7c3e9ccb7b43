from typing import Any

import pytest

from services.alerts.rules.delivery import (
    TERMINAL,
    Kind,
    Outcome,
    Policy,
    Reason,
    RowStatus,
    State,
    Transition,
    Unclaimed,
    decide,
    unclaimed,
)

POLICY = Policy(retry_delays=(300, 300, 900), wait_tiers=(10, 60), max_age=3600)
FAILED = Outcome(Kind.FAILED, Reason.SERVER_ERROR, 500)
UNKNOWN = Outcome(Kind.UNKNOWN, Reason.TIMEOUT)


def decided(outcome: Outcome, *, attempts: int = 1, age: float = 0, **case: bool) -> Transition:
    return decide(outcome, attempts=attempts, age=age, policy=POLICY, **case)


def test_a_success_is_delivered_however_late() -> None:
    done = Transition(State.DELIVERED, Reason.OK)
    assert decided(Outcome(Kind.DELIVERED, Reason.OK), attempts=99, age=1e9) == done


def test_each_failure_waits_its_delay_until_retries_are_exhausted() -> None:
    states = [decided(FAILED, attempts=attempts) for attempts in (1, 2, 3, 4)]
    assert [(one.state, one.delay) for one in states] == [
        (State.PENDING, 300),
        (State.PENDING, 300),
        (State.PENDING, 900),
        (State.FAILED, 0),
    ]
    assert states[-1].reason == Reason.EXHAUSTED


def test_a_permanent_error_fails_at_the_first_attempt() -> None:
    refused = Outcome(Kind.NEVER, Reason.REFUSED, 422)
    assert decided(refused) == Transition(State.FAILED, Reason.REFUSED)


HELD = Outcome(Kind.HELD, Reason.GONE, 404)
WAITS = Transition(State.PENDING, Reason.GONE, 300, refund=True)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({}, WAITS),
        ({"attempts": 4}, WAITS),  # all that it has: it is given back
        ({"once": True}, WAITS),  # it was certainly not sent
        ({"age": 3301}, Transition(State.FAILED, Reason.EXPIRED)),
        # The target refused us over this alert before, and has accepted another since.
        ({"singled_out": True}, Transition(State.FAILED, Reason.GONE)),
        ({"singled_out": True, "once": True}, Transition(State.FAILED, Reason.GONE)),
    ],
)
def test_a_refusal_of_us_is_the_targets_fault_unless_it_is_of_one_alert(
    case: dict[str, Any], expected: Transition
) -> None:
    assert decided(HELD, **case) == expected


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.HELD])
def test_whether_an_alert_was_singled_out_matters_to_no_other_outcome(kind: Kind) -> None:
    outcome = Outcome(kind, Reason.TIMEOUT)
    assert decided(outcome, singled_out=True) == decided(outcome)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (HELD, "404"),
        (Outcome(Kind.HELD, Reason.UNAUTHORIZED, 200), "unauthorized"),
        (Outcome(Kind.HELD, Reason.UNAUTHORIZED, 535), "535"),
        (Outcome(Kind.NEVER, Reason.REFUSED, 422), None),
    ],
)
def test_a_refusal_is_told_by_its_status_or_its_reason(outcome: Outcome, said: str | None) -> None:
    assert outcome.refusal == said


@pytest.mark.parametrize(("asked", "tier"), [(None, 10), (7, 10), (10, 10), (11, 60), (5000, 900)])
def test_a_requested_wait_is_rounded_up_and_uses_no_attempt(
    asked: float | None, tier: float
) -> None:
    later = decided(Outcome(Kind.LATER, Reason.RATE_LIMITED, 429, retry_after=asked), attempts=4)
    assert later == Transition(State.PENDING, Reason.RATE_LIMITED, tier, refund=True)


def test_waiting_ends_at_the_max_age() -> None:
    later = Outcome(Kind.LATER, Reason.RATE_LIMITED, 429, retry_after=60)
    assert decided(later, age=3541) == Transition(State.FAILED, Reason.EXPIRED)
    assert decided(FAILED, age=3301) == Transition(State.FAILED, Reason.EXPIRED)
    assert decided(FAILED, age=3300).state is State.PENDING


def test_an_unknown_outcome_is_retried_unless_at_most_once() -> None:
    assert decided(UNKNOWN).state is State.PENDING
    assert decided(UNKNOWN, once=True) == Transition(State.IN_DOUBT, Reason.TIMEOUT)


DEAD = {"lease_over": True}


@pytest.mark.parametrize(
    ("states", "row", "expected"),
    [
        (TERMINAL, {}, Unclaimed.ACK),
        ({State.SENDING}, {"generation": 1}, Unclaimed.ACK),  # newer than the message
        ({State.PENDING, State.CLAIMED, State.SENDING}, {}, Unclaimed.PARK),  # leased or not due
        ({State.PENDING, State.CLAIMED, State.SENDING}, {"once": True}, Unclaimed.PARK),
        ({State.SENDING}, DEAD, Unclaimed.TAKE_OVER),
        ({State.SENDING}, DEAD | {"attempts": 6}, Unclaimed.EXHAUSTED),
        ({State.SENDING}, {"attempts": 6}, Unclaimed.PARK),
        ({State.SENDING}, DEAD | {"once": True}, Unclaimed.DOUBT),
        ({State.SENDING}, DEAD | {"once": True, "attempts": 6}, Unclaimed.DOUBT),
    ],
)
def test_only_a_message_that_is_not_needed_any_more_is_acknowledged(
    states: set[State], row: dict[str, Any], expected: Unclaimed
) -> None:
    values = {"generation": 0, "attempts": 1, "lease_over": False, "once": False} | row
    for state in states:
        assert unclaimed(RowStatus(state, **values), generation=0, retries=5) is expected
    assert unclaimed(None, generation=0, retries=5) is Unclaimed.MISSING_ROW
