"""What leaves to which subscription, and when it is tried again."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from services.alerts import topology
from services.alerts.channels.responses import classify
from services.alerts.channels.subscription import SubscriptionTarget
from services.alerts.delivery.events import person
from services.alerts.messages import Occurred
from services.alerts.rules import delivery, events
from services.alerts.rules.delivery import BreakerState, Kind, Reason, State
from services.alerts.rules.subjects import Subjects
from services.alerts.store.breakers import BreakerStatus
from services.alerts.targets.status import _changes
from services.gateway.pages import docs
from tests.support.contracts import EXTRA, golden

pytestmark = pytest.mark.promise("P15")

WEBHOOKS = docs.load()["webhooks"]
AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)
PERSON = "7f3c1d5ab0e94c8f9a2b6d1e3c5f7a90"
SECRET = "whsec_c2FuZGJveC1zYW5kYm94LXNhbmRib3gtMTIzNA=="
ID = UUID("6f6d4c52-6a0e-4b58-8f39-2d54a8c0f0aa")
KEYS = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.mark.parametrize("event_type", events.EVENTS)
@EXTRA
def test_each_event_matches_its_contract_and_the_api_document(
    event_type: str, extra: dict[str, Any]
) -> None:
    contract = golden(f"events/{event_type}")
    delivered = contract["delivered"]
    if event_type != events.TEST:
        body = contract["occurred"] | extra
        Occurred.model_validate(body)
        known = PERSON if "email" in body else None
        assert events.content(event_type, body, AT, known) == delivered["data"]
    shown = WEBHOOKS[event_type]["post"]["requestBody"]["content"]
    assert shown["application/json"]["example"] == delivered


def test_every_event_is_described_and_no_other() -> None:
    assert WEBHOOKS.keys() == events.EVENTS.keys()


def test_without_the_scope_an_event_names_nobody() -> None:
    for event_type in events.EVENTS:
        data = events.without_persons(golden(f"events/{event_type}")["delivered"]["data"])
        text = json.dumps(data)
        assert not any(each in text for each in ("ala@", "600700800", "Nowak", "Lis", "console"))
        assert Subjects(KEYS).named_by({name: data[name] for name in data.keys() - {"person"}}) in (
            [],
            Subjects(KEYS).named_by({"conversation_id": data.get("conversation_id")}),
        )


def test_a_body_that_is_too_large_says_where_the_whole_is() -> None:
    body = golden("events/lead.qualified")["occurred"] | {"said": ["ż" * 40_000]}
    data = events.content("lead.qualified", body, AT, PERSON)
    assert (data["truncated"], data["fetch"]) == (True, f"/api/leads/{body['lead_id']}")
    assert "said" not in data
    assert "email" not in data
    assert events.size(data) <= events.MOST_BYTES
    assert events.without_persons(data) == data
    many = golden("events/person.erased")["occurred"] | {"conversations": [str(ID)] * 5_000}
    assert events.size(events.content("person.erased", many, AT, None)) <= events.MOST_BYTES


def test_of_two_events_the_newer_has_the_larger_sequence() -> None:
    later = AT.replace(microsecond=123457)
    first, second = (events.content("lead.closed", {}, at, None) for at in (AT, later))
    assert first["sequence"] < second["sequence"] < 2**53


def test_a_person_has_one_name_which_says_nothing_else() -> None:
    subjects = Subjects(KEYS)
    (name,) = person(subjects, "ala@example.com")
    assert person(subjects, "ala@example.com") == [name] != person(subjects, "ela@example.com")
    assert (len(name), person(subjects, None)) == (32, [])


def test_it_waits_as_the_design_says_and_in_the_ledger() -> None:
    target = SubscriptionTarget.of("https://example.com/hook", [SECRET])
    assert target.retry_delays == (5, 60, 600, 3600, 21_600, 86_400)
    assert topology.delays(target) == []
    names = [queue.name for queue in topology.subscription_queues("subscription.1")]
    assert names == [f"alerts.subscription.1{part}" for part in ("", ".retry", ".dead")]
    failed = delivery.Outcome(Kind.FAILED, Reason.SERVER_ERROR, 500)
    first = delivery.decide(failed, attempts=1, age=0, policy=target.policy)
    assert delivery.spread(first, failed, 0.0).delay == 5
    assert delivery.spread(first, failed, 1.0).delay == 6
    asked = classify(429, "", 123.0)
    later = delivery.decide(asked, attempts=1, age=0, policy=target.policy)
    assert delivery.spread(later, asked, 0.5).delay == pytest.approx(135.3)
    last = delivery.decide(failed, attempts=7, age=0, policy=target.policy)
    assert (last.state, last.reason) == (State.FAILED, Reason.EXHAUSTED)


def status(since: datetime | None) -> BreakerStatus:
    return BreakerStatus(BreakerState.OPEN, 5, 1.0, mine=False, paused=0, since=since, processes=2)


def test_a_target_that_stops_or_recovers_is_told_once_by_all_processes() -> None:
    before, now = {"slack": status(None)}, {"slack": status(AT)}
    ((exchange, key, message),) = _changes(before, now)
    assert (exchange, key, message.type) == ("alerts", "event.occurred", "target.paused")
    assert message.body["target"] == "slack"
    assert _changes(before, now)[0][2].id == message.id
    ((_, _, back),) = _changes(now, before)
    assert (back.type, back.id == message.id) == ("target.recovered", False)
    assert _changes(now, now) == _changes({}, now) == []
    assert _changes({"subscription.1": status(None)}, {"subscription.1": status(AT)}) == []
