"""What a model may add to a conversation: facts that stand in the message, and questions."""

import pytest

from services.followups import dialogue
from services.followups.dialogue.hearing import NO_HINT, Hint, OfWorks
from services.followups.dialogue.state import State
from tests.support import dialogues
from tests.support.shipped import FOLLOWUPS

NEW = State()
VAGUE = "takie zwykłe z bloku, chyba 5 na oko licząc ze schowkiem którego nie ruszamy"


class Talk:
    def __init__(self, state: State = NEW) -> None:
        self.state = state

    def say(self, message: str, hint: Hint = NO_HINT) -> dialogue.Turn:
        turn = dialogue.turn(
            self.state, message, taps=FOLLOWUPS.taps, today=dialogues.TODAY,
            hint=hint,
        )  # fmt: skip
        self.state = turn.state
        return turn

    def card(self) -> dict[str, bool]:
        return {fact["name"]: fact["sure"] for fact in FOLLOWUPS.taps.card(self.state)}


@pytest.fixture
def talk() -> Talk:
    begun = Talk()
    begun.say("remont łazienki")
    return begun


def test_a_quoted_fact_is_read_by_our_reader_and_unsure_on_the_card(talk: Talk) -> None:
    assert talk.say(VAGUE, Hint(quotes=(("area", "chyba 5"),))).heard.unclear == VAGUE
    assert talk.state.facts.area == 5
    assert talk.card() == {"wish": True, "area": False}
    talk.say("metraż to 6 m2")
    assert talk.card() == {"wish": True, "area": True}


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
    talk: Talk, name: OfWorks, quote: str
) -> None:
    talk.say(VAGUE, Hint(quotes=((name, quote),)))
    assert talk.card() == {"wish": True}


@pytest.mark.parametrize(
    "message",
    [
        "6 m2", "dzień dobry", "ile to kosztuje?", "cieknie mi kran", "STOP", "tak", "dzięki",
        "600 700 800", "robicie w Warszawie?", "czuję gaz", "mam 11 lat i rysuję sobie dom",
        "Guten Tag, wir haben so eine alte Wohnung und wissen nicht weiter",
    ],
)  # fmt: skip
def test_what_a_rule_reads_is_not_the_model_s(talk: Talk, message: str) -> None:
    hint = Hint("emergency", (("area", message), ("budget", message), ("start", message)))
    told = Talk(talk.state).say(message)
    turn = talk.say(message, hint)
    assert (turn.heard.unclear, turn.reply) == (None, told.reply)


def test_an_answer_about_consent_is_never_the_model_s(talk: Talk) -> None:
    talk.say("6 m2, 40 tys, od maja, jan@example.com")
    assert talk.state.asking == "consent"
    turn = talk.say("no to ja już sam nie wiem, co by tu", Hint("human", (("area", "nie"),)))
    assert turn.heard.unclear is None
    assert (talk.state.consent, talk.state.offered) == (None, None)


def test_a_kind_is_asked_about_and_not_guessed(talk: Talk) -> None:
    turn = talk.say("u nas na górze szkło i tyle", Hint("emergency"))
    assert "Czy to awaria" in turn.reply
    assert talk.state.route is None
    assert talk.say("tak").state.route == "emergency"


def test_the_text_that_a_model_gets_has_no_contact(talk: Talk) -> None:
    turn = talk.say("u nas na górze szkło i tyle, jan@example.com")
    assert turn.heard.unclear is None
