"""The checker of tests/cluster names each thing that is wrong, and nothing that is not."""

from collections import Counter
from typing import Any

import pytest

from tests.cluster.checker import ACCEPTED_SECONDS, HEALED_SECONDS, Found, violations
from tests.cluster.generator import QUOTA
from tests.cluster.history import Event, Kind

ANNA = "anna@example.pl"
Told = tuple[float, Kind, str, str, dict[str, Any]]
ALERT: list[Told] = [
    (1.0, "invoke", "alert", "k1", {"texts": ["first"]}),
    (1.1, "ok", "alert", "k1", {"ids": ["id-1"]}),
]
BATCH: list[Told] = [
    (1.0, "invoke", "batch", "k2", {"texts": ["second", "third"]}),
    (1.1, "ok", "batch", "k2", {"ids": ["id-2", "id-3"]}),
]
LEFT: list[Told] = [
    (2.0, "invoke", "opt-in", ANNA, {}),
    (2.1, "ok", "opt-in", ANNA, {}),
    (5.0, "invoke", "unsubscribe", ANNA, {}),
    (6.0, "ok", "unsubscribe", ANNA, {}),
]


def burst(passed: int, at: float = 10.0, minutes: int = 1) -> list[Told]:
    answers = [200] * passed + [429] * 10 + [0] * 3
    return [
        (at, "invoke", "burst", "1.2.3.4", {}),
        (at + 1, "ok", "burst", "1.2.3.4", {"answers": answers, "minutes": minutes}),
    ]


def fault(host: str, begin: float, end: float, what: str = "kill") -> list[Told]:
    return [(begin, "begin", what, host, {}), (end, "end", what, host, {})]


def good(**changes: Any) -> Found:
    found: dict[str, Any] = {
        "states": {f"id-{number}": "delivered" for number in (1, 2, 3)},
        "received": Counter(["first", "second", "third", "third"]),
        "mails": {ANNA: [4.0]},
        "follow_ups": {ANNA: "sent"},
        "actions": {ANNA: {"opt-in", "unsubscribe"}},
    }
    return Found(**(found | changes))


def wrong(*more: Told, **changes: Any) -> list[str]:
    """Return what is wrong with a history of people and alerts, and of more."""
    events = sorted((Event(*one) for one in (*ALERT, *BATCH, *LEFT, *more)), key=lambda e: e.at)
    return violations(events, good(**changes))


def test_what_kept_its_promises_is_not_blamed() -> None:
    more = burst(QUOTA) + fault("a", 20, 30) + fault("a", 21, 29)
    failed = {"states": {"id-1": "failed", "id-2": "delivered", "id-3": "delivered"}}
    assert wrong(*more) == []
    assert wrong(*more, **failed, told={"id-1"}) == []
    assert wrong(*more, follow_ups={ANNA: "in_doubt"}, mails={}) == []


@pytest.mark.control("P1", "P3", "P4", "P8", "P10")
@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"received": Counter(["first", "second"])}, "P1: accepted at 1.10: id-3"),
        ({"states": {"id-2": "delivered", "id-3": "delivered"}}, "id-1 is not in the ledger"),
        ({"states": {f"id-{n}": "failed" for n in (1, 2, 3)}, "told": {"id-1", "id-2"}}, "id-3"),
        ({"received": Counter(["first", "second", "third", "fourth"])}, "'fourth', which nobody"),
        ({"ledger": {"ok": False}}, "P1: the ledger is not balanced"),
        ({"ledger": {"ok": True, "unread": 1}}, "P1: the ledger is not balanced"),
        ({"ledger": {"ok": True, "pending": 1}}, "P1: the ledger is not balanced"),
        ({"mails": {ANNA: [3.0, 4.0]}}, "P3"),
        ({"follow_ups": {ANNA: "cancelled"}}, "P3"),
        ({"follow_ups": {ANNA: "failed"}}, "P3"),
        ({"follow_ups": {ANNA: "scheduled"}}, "P3"),
        ({"mails": {ANNA: [6.5]}}, "P4"),
        ({"verified": False}, "P5: the trail does not verify"),
        ({"actions": {ANNA: {"opt-in"}}}, "P5: unsubscribe of anna"),
        ({"actions": {ANNA: {"unsubscribe"}}}, "P5: opt-in of anna"),
        ({"traces": [(ANNA, "followups.inbox")]}, "P5: anna@example.pl was erased"),
    ],
)
def test_each_broken_promise_is_named(changes: dict[str, Any], names: str) -> None:
    (line,) = wrong(**changes)
    assert names in line


def test_a_quota_is_exact_but_for_gateways_that_may_count_alone() -> None:
    assert len(wrong(*burst(QUOTA + 1))) == 1
    assert wrong(*burst(QUOTA + 1, minutes=2)) == []
    assert wrong(*burst(2 * QUOTA), *fault("a", 2, 9)) == []
    assert len(wrong(*burst(QUOTA + 1), *fault("a", 2, 9, "kill alerts"))) == 1
    assert len(wrong(*burst(2 * QUOTA + 1), *fault("a", 2, 9))) == 1
    assert len(wrong(*burst(QUOTA + 1, at=100), *fault("a", 2, 99 - HEALED_SECONDS))) == 1


def test_a_lost_server_is_no_reason_for_a_500() -> None:
    asked: list[Told] = [(10.0, "invoke", "enrol", ANNA, {})]
    (line,) = wrong(*asked, (12.0, "ok", "enrol", ANNA, {"told": [0, 500, 503]}))
    assert line == f"enrol {ANNA} was answered 500"
    assert wrong(*asked, (12.0, "ok", "enrol", ANNA, {"told": [0, 202, 503]})) == []


@pytest.mark.parametrize("kind", ["unknown", "fail", None])
def test_an_alert_must_be_accepted_while_one_host_is_in_trouble(kind: Kind | None) -> None:
    asked: list[Told] = [(10.0, "invoke", "alert", "k4", {"texts": ["fourth"]})]
    ended: list[Told] = [(12.0, kind, "alert", "k4", {})] if kind else []
    late = 10 + ACCEPTED_SECONDS + 1
    assert any("P2" in line for line in wrong(*asked, *ended, *fault("a", 9, 11)))
    two = fault("a", 9, 11) + fault("b", 10, 12)
    refused = kind == "fail"
    assert any("P2" in line for line in wrong(*asked, *ended, *two)) is refused
    slow: list[Told] = [(late, "ok", "alert", "k4", {"ids": ["id-1"]})]
    assert any("P2" in line for line in wrong(*asked, *slow))


def alarm(said: str, outcome: Kind = "ok") -> list[Told]:
    """Return the history of one alarm that said this, one after the other."""
    return [
        told
        for number, one in enumerate(said.split())
        for told in (
            (20.0 + number, "invoke", "alarm", f"a{number}",
             {"texts": [f"alarm {number}"], "thing": "thing", "fires": one == "on"}),
            (20.5 + number, outcome, "alarm", f"a{number}", {"ids": [f"a-{number}"]}),
        )
    ]  # fmt: skip


def shown(*states: str) -> dict[str, Any]:
    found = good()
    of = {f"a-{number}": state for number, state in enumerate(states)}
    texts = [f"alarm {number}" for number, state in enumerate(states) if state == "delivered"]
    return {"states": found.states | of, "received": found.received + Counter(texts)}


@pytest.mark.parametrize(
    ("said", "states"),
    [
        ("on on off on", ("delivered", "repeat", "delivered", "delivered")),
        ("on on off", ("delivered", "repeat", "delivered")),
        ("on off on", ("delivered", "repeat", "repeat")),  # it overtook the end
    ],
)
def test_an_alarm_that_slack_shows_as_it_is_is_not_blamed(
    said: str, states: tuple[str, ...]
) -> None:
    assert wrong(*alarm(said), **shown(*states)) == []


def test_an_alarm_that_fires_again_unseen_is_found() -> None:
    states = ("delivered", "delivered", "repeat")
    (said,) = wrong(*alarm("on off on"), **shown(*states))
    assert "thing fires: [True], and Slack was shown [False]" in said
    lost = wrong(*alarm("on off on"), **shown("delivered", "delivered"))
    assert len(lost) == 2
    assert any("a-2 is not in the ledger" in one for one in lost)


def test_an_alarm_whose_last_word_is_unknown_is_not_judged() -> None:
    assert not [one for one in wrong(*alarm("on off on", "unknown"), **shown()) if "fires" in one]
