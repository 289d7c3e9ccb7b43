"""What a model may add to a conversation: facts that stand in the message, and questions."""

import pytest

from services.followups.dialogue.hearing import Hint, OfWorks
from tests.support.dialogues import Visitor
from tests.support.shipped import FOLLOWUPS

VAGUE = "takie zwykłe z bloku, chyba 5 na oko licząc ze schowkiem którego nie ruszamy"


def card(visitor: Visitor) -> dict[str, bool]:
    return {fact["name"]: fact["sure"] for fact in FOLLOWUPS.taps.card(visitor.state)}


@pytest.fixture
def talk() -> Visitor:
    begun = Visitor()
    begun.says("remont łazienki")
    return begun


def test_a_quoted_fact_is_read_by_our_reader_and_unsure_on_the_card(talk: Visitor) -> None:
    assert talk.says(VAGUE, hint=Hint(quotes=(("area", "chyba 5"),))).heard.unclear == VAGUE
    assert talk.state.facts.area == 5
    assert card(talk) == {"wish": True, "area": False}
    talk.says("metraż to 6 m2")
    assert card(talk) == {"wish": True, "area": True}


@pytest.mark.parametrize(
    ("name", "quote"),
    [
        ("area", "45"),  # not in the message
        ("area", "zwykłe z bloku"),  # no area for our reader
        ("budget", "na oko"),
        ("area", "yba 5"),  # the end of a word
        ("start", ""),
    ],
)
def test_a_quote_that_does_not_stand_there_or_is_none_adds_nothing(
    talk: Visitor, name: OfWorks, quote: str
) -> None:
    talk.says(VAGUE, hint=Hint(quotes=((name, quote),)))
    assert card(talk) == {"wish": True}


@pytest.mark.parametrize(
    "message",
    [
        "6 m2", "dzień dobry", "ile to kosztuje?", "cieknie mi kran", "STOP", "tak", "dzięki",
        "600 700 800", "robicie w Warszawie?", "czuję gaz", "mam 11 lat i rysuję sobie dom",
        "Guten Tag, wir haben so eine alte Wohnung und wissen nicht weiter",
    ],
)  # fmt: skip
def test_what_a_rule_reads_is_not_the_model_s(talk: Visitor, message: str) -> None:
    hint = Hint("emergency", (("area", message), ("budget", message), ("start", message)))
    told = Visitor(state=talk.state).says(message)
    turn = talk.says(message, hint=hint)
    assert (turn.heard.unclear, turn.reply) == (None, told.reply)


def test_an_answer_about_consent_is_never_the_model_s(talk: Visitor) -> None:
    talk.says("6 m2, 40 tys, od maja, jan@example.com")
    assert talk.state.asking == "consent"
    turn = talk.says("no to ja już sam nie wiem, co by tu", hint=Hint("human", (("area", "nie"),)))
    assert turn.heard.unclear is None
    assert (talk.state.consent, talk.state.offered) == (None, None)


def test_a_kind_is_asked_about_and_not_guessed(talk: Visitor) -> None:
    turn = talk.says("u nas na górze szkło i tyle", hint=Hint("emergency"))
    assert "Czy to awaria" in turn.reply
    assert talk.state.route is None
    assert talk.says("tak").state.route == "emergency"


def test_the_text_that_a_model_gets_has_no_contact(talk: Visitor) -> None:
    turn = talk.says("u nas na górze szkło i tyle, jan@example.com")
    assert turn.heard.unclear is None
