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
DELIVERED = Outcome(Kind.DELIVERED, Reason.OK)
FAILED = Outcome(Kind.FAILED, Reason.SERVER_ERROR, 500)
UNKNOWN = Outcome(Kind.UNKNOWN, Reason.TIMEOUT)


def decided(outcome: Outcome, *, attempts: int = 1, age: float = 0, **case: bool) -> Transition:
    return decide(outcome, attempts=attempts, age=age, policy=POLICY, **case)


HELD = Outcome(Kind.HELD, Reason.GONE, 404)
NEVER = Outcome(Kind.NEVER, Reason.REFUSED, 422)
LATER = Outcome(Kind.LATER, Reason.RATE_LIMITED, 429, retry_after=60)
WAITS = Transition(State.PENDING, Reason.GONE, 300, refund=True)
EXPIRED = Transition(State.FAILED, Reason.EXPIRED)


def again(delay: float) -> Transition:
    return Transition(State.PENDING, Reason.SERVER_ERROR, delay)


@pytest.mark.parametrize(
    ("outcome", "case", "expected"),
    [
        # A success is delivered, however late; a permanent error fails at the first attempt.
        (DELIVERED, {"attempts": 99, "age": 1e9}, Transition(State.DELIVERED, Reason.OK)),
        (NEVER, {}, Transition(State.FAILED, Reason.REFUSED)),
        # Each failure waits its delay, until retries are exhausted.
        (FAILED, {}, again(300)),
        (FAILED, {"attempts": 2}, again(300)),
        (FAILED, {"attempts": 3}, again(900)),
        (FAILED, {"attempts": 4}, Transition(State.FAILED, Reason.EXHAUSTED)),
        # A refusal of us is the target's fault: it was certainly not sent, and the attempt is
        # given back. But the target may refuse one alert, and have accepted another since.
        (HELD, {}, WAITS),
        (HELD, {"attempts": 4}, WAITS),
        (HELD, {"once": True}, WAITS),
        (HELD, {"singled_out": True}, Transition(State.FAILED, Reason.GONE)),
        (HELD, {"singled_out": True, "once": True}, Transition(State.FAILED, Reason.GONE)),
        # Waiting ends at the max age.
        (HELD, {"age": 3301}, EXPIRED),
        (LATER, {"age": 3541}, EXPIRED),
        (FAILED, {"age": 3301}, EXPIRED),
        (FAILED, {"age": 3300}, again(300)),
        # An unknown outcome is retried, unless at most once.
        (UNKNOWN, {}, Transition(State.PENDING, Reason.TIMEOUT, 300)),
        (UNKNOWN, {"once": True}, Transition(State.IN_DOUBT, Reason.TIMEOUT)),
    ],
)
def test_each_outcome_ends_an_attempt(
    outcome: Outcome, case: dict[str, Any], expected: Transition
) -> None:
    assert decided(outcome, **case) == expected


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
