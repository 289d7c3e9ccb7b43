"""Every button and every refusal has a text in each language, beside those of the states."""

from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from libs.common import beside
from libs.domain.hours import Hours
from services.alerts.config.texts import item, label, line, refusal, texts
from services.alerts.rules.case import MENUS, Refused, State, Verb, offered

TABLE = beside.toml(__file__)
AT = datetime(2026, 11, 27, 9, tzinfo=UTC)


def said(zone: str = "UTC", payload: dict[str, Any] | None = None, **changes: Any) -> str:
    case: dict[str, Any] = {
        "event_type": "lead", "state": State.OPEN, "reason": None, "outcome": None,
        "owner_name": None, "opened_at": AT, "answered_at": None, "now": AT,
        "payload": {"score": 100} | (payload or {}), "next_at": AT, "generation": 1, "step": 0,
    }  # fmt: skip
    return line(SimpleNamespace(**(case | changes)), Hours(ZoneInfo(zone), None, None))


@pytest.mark.parametrize(("given", "title"), TABLE["titles"])
def test_a_case_says_the_job_and_the_town(given: dict[str, Any], title: str) -> None:
    told = said(payload=given | {"staff_language": "pl"})
    assert told == f"{title}: czeka na odpowiedź 0 min"


@pytest.mark.parametrize("state", State)
def test_each_button_that_is_offered_has_a_label(state: State) -> None:
    labels = [label(verb, language) for verb in offered(state, None) for language in ("en", "pl")]
    assert len(set(labels)) == len(labels)
    assert all(refusal(why, "Ewa", "pl") for why in Refused)


def test_a_case_that_ended_offers_no_button() -> None:
    assert offered(State.CANCELLED, None) == offered(State.ANSWERED, "won") == ()


def test_a_time_of_another_day_is_said_with_its_date() -> None:
    tomorrow: dict[str, Any] = {"next_at": AT + timedelta(days=1), "now": AT.replace(hour=23)}
    assert said(**tomorrow) == "Lead, score 100: put off until 28.11. 09:00"
    # The day is that of the case's hours: there it is already the 28th.
    assert said("Europe/Warsaw", **tomorrow) == "Lead, score 100: put off until 10:00"


def test_each_item_of_a_menu_has_a_text() -> None:
    for menu in MENUS.values():
        for language in ("en", "pl"):
            items = [item(each, time(8, 30), language) for each in menu]
            assert len(set(items)) == len(items)
    assert item(MENUS[Verb.LATER][1], time(8, 30), "pl") == "Jutro 08:30"


def test_both_languages_have_the_same_texts() -> None:
    for section in ("lines", "outcomes", "buttons", "choices", "refusals", "page"):
        assert texts(section, "pl").keys() == texts(section, "en").keys()
