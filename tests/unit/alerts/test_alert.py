import pytest

from services.alerts.alert import (
    TERMINAL,
    Decision,
    Kind,
    Outcome,
    Policy,
    Reason,
    Seen,
    State,
    Unclaimed,
    decide,
    unclaimed,
)

POLICY = Policy(retry_delays=(300, 300, 900), wait_tiers=(10, 60), max_age=3600)
FAILED = Outcome(Kind.FAILED, Reason.SERVER_ERROR, 500)
UNKNOWN = Outcome(Kind.UNKNOWN, Reason.TIMEOUT)


def decided(outcome: Outcome, *, spent: int = 1, age: float = 0, once: bool = False) -> Decision:
    return decide(outcome, spent=spent, age=age, policy=POLICY, once=once)


def test_a_success_is_delivered_however_late() -> None:
    done = Decision(State.DELIVERED, Reason.OK)
    assert decided(Outcome(Kind.DELIVERED, Reason.OK), spent=99, age=1e9) == done


def test_each_failure_waits_its_own_delay_and_the_one_after_the_last_is_the_end() -> None:
    states = [decided(FAILED, spent=spent) for spent in (1, 2, 3, 4)]
    assert [(one.state, one.delay) for one in states] == [
        (State.PENDING, 300),
        (State.PENDING, 300),
        (State.PENDING, 900),
        (State.FAILED, 0),
    ]
    assert states[-1].reason == Reason.EXHAUSTED


def test_what_will_never_work_fails_at_the_first_try_with_its_own_reason() -> None:
    gone = Outcome(Kind.NEVER, Reason.GONE, 410)
    assert decided(gone) == Decision(State.FAILED, Reason.GONE)


@pytest.mark.parametrize(("asked", "tier"), [(None, 10), (7, 10), (10, 10), (11, 60), (5000, 900)])
def test_a_target_that_asks_for_patience_gets_it_rounded_up_and_nothing_is_spent(
    asked: float | None, tier: float
) -> None:
    later = decided(Outcome(Kind.LATER, Reason.RATE_LIMITED, 429, retry_after=asked), spent=4)
    assert later == Decision(State.PENDING, Reason.RATE_LIMITED, tier, spend=False)


def test_patience_ends_with_the_alerts_age() -> None:
    later = Outcome(Kind.LATER, Reason.RATE_LIMITED, 429, retry_after=60)
    assert decided(later, age=3541) == Decision(State.FAILED, Reason.EXPIRED)
    assert decided(FAILED, age=3301) == Decision(State.FAILED, Reason.EXPIRED)
    assert decided(FAILED, age=3300).state is State.PENDING


def test_an_unknown_outcome_is_tried_again_unless_it_may_leave_only_once() -> None:
    assert decided(UNKNOWN).state is State.PENDING
    assert decided(UNKNOWN, once=True) == Decision(State.IN_DOUBT, Reason.TIMEOUT)


def seen(state: State, **other: object) -> Seen:
    values = {"turn": 0, "spent": 1, "lease_over": False, "once": False} | other
    return Seen(state, **values)  # type: ignore[arg-type]


def test_a_copy_of_a_finished_erased_or_newer_row_is_acked() -> None:
    assert unclaimed(None, turn=0, retries=5) is Unclaimed.ACK
    for state in TERMINAL:
        assert unclaimed(seen(state), turn=0, retries=5) is Unclaimed.ACK
    assert unclaimed(seen(State.SENDING, turn=1), turn=0, retries=5) is Unclaimed.ACK


@pytest.mark.parametrize("state", [State.PENDING, State.CLAIMED, State.SENDING])
def test_a_copy_of_a_row_that_is_owned_or_not_due_is_parked_never_acked(state: State) -> None:
    for once in (False, True):
        assert unclaimed(seen(state, once=once), turn=0, retries=5) is Unclaimed.PARK


def test_a_row_whose_worker_died_is_taken_over_once_its_lease_is_over() -> None:
    over = seen(State.SENDING, lease_over=True)
    assert unclaimed(over, turn=0, retries=5) is Unclaimed.TAKE_OVER


def test_a_row_whose_workers_all_died_is_exhausted_once_the_last_lease_is_over() -> None:
    last = {"spent": 6, "lease_over": True}
    assert unclaimed(seen(State.SENDING, **last), turn=0, retries=5) is Unclaimed.EXHAUSTED
    assert unclaimed(seen(State.SENDING, spent=6), turn=0, retries=5) is Unclaimed.PARK


def test_a_mail_whose_worker_died_with_the_dot_perhaps_out_is_in_doubt_not_sent_again() -> None:
    for spent in (1, 6):
        row = seen(State.SENDING, once=True, lease_over=True, spent=spent)
        assert unclaimed(row, turn=0, retries=5) is Unclaimed.DOUBT
