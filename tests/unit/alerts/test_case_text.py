"""Every button and every refusal has a text in each language, beside those of the states."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.alerts.case import Refused, State, Verb, offered
from services.alerts.case_text import Shown, label, refusal

AT = datetime(2026, 11, 27, 9, tzinfo=UTC)


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
    until = AT + timedelta(hours=1)
    shown = Shown("1", "lead", language, 100, State.OPEN, None, None, AT, None, until, AT, 0)
    line = shown.line(ZoneInfo("UTC"))
    assert (label(Verb.TAKEN, language), line, refusal(Refused.ANSWERED, "Ewa", language)) == texts


@pytest.mark.parametrize("state", State)
def test_each_button_that_is_offered_has_a_label(state: State) -> None:
    labels = [label(verb, language) for verb in offered(state, None) for language in ("en", "pl")]
    assert len(set(labels)) == len(labels)
    assert all(refusal(why, "Ewa", "pl") for why in Refused)


def test_a_case_that_ended_offers_no_button() -> None:
    assert offered(State.CANCELLED, None) == offered(State.ANSWERED, "won") == ()
