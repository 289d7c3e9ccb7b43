"""Every button and every refusal has a text in each language, beside those of the states."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.alerts.config.texts import Shown, item, label, refusal, texts
from services.alerts.rules.case import MENUS, Refused, State, Verb, offered

AT = datetime(2026, 11, 27, 9, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")


def shown(**changes: Any) -> Shown:
    case: dict[str, Any] = {
        "id": "1",
        "event_type": "lead",
        "language": None,
        "score": 100,
        "state": State.OPEN,
        "reason": None,
        "outcome": None,
        "owner": None,
        "opened_at": AT,
        "answered_at": None,
        "until": None,
        "now": AT,
        "minutes": 0,
    }
    return Shown(**(case | changes))


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        (None, ("Take it", "Lead, score 100: put off until 10:00", "Ewa has it.")),
        ("pl", ("Biorę", "Lead, 100 pkt: odłożone do 10:00", "Ma to Ewa.")),
    ],
)
def test_buttons_states_and_refusals_have_texts_of_their_own(
    language: str | None, texts: tuple[str, str, str]
) -> None:
    line = shown(language=language, until=AT + timedelta(hours=1)).line(UTC_ZONE)
    assert (label(Verb.TAKEN, language), line, refusal(Refused.ANSWERED, "Ewa", language)) == texts


@pytest.mark.parametrize(
    ("language", "text"), [(None, "Returning customer, score 100"), ("pl", "Klient wraca, 100 pkt")]
)
def test_a_case_says_that_a_customer_returns(language: str | None, text: str) -> None:
    assert shown(language=language, returns=True).line(UTC_ZONE).startswith(f"{text}: ")


@pytest.mark.parametrize(
    ("given", "title"),
    [
        ({"about": "remont łazienki, Gdynia"}, "Lead: remont łazienki, Gdynia"),
        ({"about": "remont łazienki", "returns": True}, "Klient wraca: remont łazienki"),
        ({"topic": "Reklamacja", "score": 0}, "Reklamacja"),
        ({"topic": "Awaria", "about": "Gdynia"}, "Awaria: Gdynia"),
    ],
)
def test_a_case_says_the_job_and_the_town(given: dict[str, Any], title: str) -> None:
    line = shown(language="pl", **given).line(UTC_ZONE)
    assert line == f"{title}: czeka na odpowiedź 0 min"


@pytest.mark.parametrize("state", State)
def test_each_button_that_is_offered_has_a_label(state: State) -> None:
    labels = [label(verb, language) for verb in offered(state, None) for language in ("en", "pl")]
    assert len(set(labels)) == len(labels)
    assert all(refusal(why, "Ewa", "pl") for why in Refused)


def test_a_case_that_ended_offers_no_button() -> None:
    assert offered(State.CANCELLED, None) == offered(State.ANSWERED, "won") == ()


def test_a_time_of_another_day_is_said_with_its_date() -> None:
    tomorrow = shown(until=AT + timedelta(days=1), now=AT.replace(hour=23))
    assert tomorrow.line(UTC_ZONE) == "Lead, score 100: put off until 28.11. 09:00"
    # The day is that of the case's hours: there it is already the 28th.
    assert tomorrow.line(ZoneInfo("Europe/Warsaw")) == "Lead, score 100: put off until 10:00"


@pytest.mark.parametrize("outcome", [*texts("outcomes", "en"), *texts("outcomes", "pl")])
def test_a_case_that_was_closed_says_how(outcome: str) -> None:
    case = shown(state=State.ANSWERED, outcome=outcome, owner="Ewa", answered_at=AT, language="pl")
    said = texts("outcomes", "pl")[outcome]
    assert case.line(UTC_ZONE) == f"Lead, 100 pkt: Ewa, 09:00: {said}"


def test_each_item_of_a_menu_has_a_text() -> None:
    for menu in MENUS.values():
        for language in ("en", "pl"):
            items = [item(each, time(8, 30), language) for each in menu]
            assert len(set(items)) == len(items)
    assert item(MENUS[Verb.LATER][1], time(8, 30), "pl") == "Jutro 08:30"


def test_both_languages_have_the_same_texts() -> None:
    for section in ("lines", "outcomes", "buttons", "choices", "refusals", "page"):
        assert texts(section, "pl").keys() == texts(section, "en").keys()
