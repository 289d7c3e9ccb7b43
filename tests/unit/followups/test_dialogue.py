"""The conversations of tests/contracts/dialogue, and the result of each."""

import json
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.followups import dialogue
from services.followups.dialogue.state import State
from services.followups.rules import facts
from services.followups.rules.fact_texts import describe_phone
from tests.support.dialogues import by_date
from tests.support.shipped import FOLLOWUPS as CONFIG

ROOT = Path(__file__).parents[3]
FIXTURES = sorted((ROOT / "tests/contracts/dialogue").glob("*.json"))
TODAY = date(2026, 11, 25)


def talk(turns: list[Any], today: date = TODAY) -> list[dialogue.Turn]:
    state, heard = State(), []
    for said in turns:
        given_turn = {"message": said} if isinstance(said, str) else dict(said)
        message, agreed = given_turn.pop("message"), given_turn.pop("agreed", None)
        language = given_turn.pop("language", None)
        turn = dialogue.turn(
            state,
            message,
            taps=CONFIG.taps,
            language=language,
            today=today,
            passed=facts.Facts(**given_turn),
            agreed=agreed,
        )
        state = State.of(json.loads(json.dumps(turn.state.stored())))
        assert state == turn.state, "a state survives its way through the database"
        heard.append(turn)
    return heard


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_conversation_file_produces_exactly_its_expected_result(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    last = talk(case["turns"], date.fromisoformat(case["today"]))[-1]
    known = by_date(last.state.facts.known())
    expected = dict(case["facts"])
    assert bool(known.pop("wish", "")) == expected.pop("wish", False)
    assert known == expected
    assert last.state.consent == case["consent"]
    assert last.state.language == case["language"]
    if "asking" in case:
        assert last.state.asking == case["asking"]


def test_a_long_message_says_its_facts_at_its_beginning_and_its_end() -> None:
    (turn,) = talk([f"Remont kuchni, 12 m2. {'Bardzo nam zależy. ' * 150} Ala, ala@example.com"])
    assert (turn.state.facts.area, turn.state.facts.email) == (12, "ala@example.com")
    assert len(turn.state.last_said or "") > 300, "staff read what nobody here has"


def test_a_list_of_numbers_is_read_up_to_its_fortieth() -> None:
    (turn,) = talk([f"80 m2, {'1, ' * 60} 600 700 800"])
    assert (turn.state.facts.area, turn.state.facts.phone) == (80, None)


def test_a_reply_asks_for_one_thing_at_most() -> None:
    questions = [text for name, text in CONFIG.texts["pl"].items() if name.startswith("ask_")]
    for turn in talk(["hej", "remont", "80 m2", "100 tys", "od maja", "jan@example.com", "tak"]):
        assert sum(question in turn.reply for question in questions) <= 1


def test_a_question_about_consent_is_answered_and_consent_is_asked_again() -> None:
    asked = "remont 50 m2 100 tys od zaraz jan@example.com"
    script = CONFIG.texts["pl"]
    first, *turns = talk([asked, "Co to znaczy?", "a po co?", "jak mogę to potem wycofać?"])
    for turn in turns:
        assert script["consent_help"] in turn.reply
        assert turn.state.consent is None
    replies = [turn.reply for turn in (first, *turns)]
    assert [script["consent_wording"] in reply for reply in replies] == [True, False, False, False]
    assert all(script["ask_consent_short"] in reply for reply in replies[1:])
    assert talk([asked, "Co to znaczy?", "a po co?", "ok"])[-1].state.consent is None
    assert (
        talk([asked, "Co to znaczy?", "a po co?", "tak, zgadzam się"])[-1].state.consent == "given"
    )


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", "Guten Tag, wir möchten unsere Wohnung renovieren"),
        ("uk", "Добрий день, потрібен ремонт кухні"),
    ],
)
def test_a_language_without_a_form_is_handed_over_to_a_person(language: str, said: str) -> None:
    script = CONFIG.handover[language]
    first, second, third = talk([said, "600 700 800", "jan@example.com"])
    first_texts = ("greeting", "welcome", "ask_contact", "notice")
    assert first.reply == " ".join(script[name] for name in first_texts)
    assert second.reply == script["passed_on"].format(
        contact=describe_phone("+48600700800"), by="{by}"
    )
    assert second.state.said == (said,), "for staff"
    assert third.state.wording is None, "consent is not asked for in an unchecked language"
    assert third.state.language == "pl", "mails have one of ours"


@pytest.mark.parametrize(
    ("language", "route", "said"),
    [
        ("de", "gas", "Hilfe, es riecht nach Gas in der Küche"),
        ("de", "water", "Rohrbruch im Bad, alles unter Wasser"),
        ("uk", "water", "прорвало трубу, заливає сусідів"),
        ("uk", "fire", "пожежа на кухні"),
        ("en", "water_above", "water is coming through the bathroom ceiling"),
        ("en", "electricity", "sparks from a socket"),
    ],
)
def test_an_emergency_is_answered_in_the_persons_language(
    language: str, route: str, said: str
) -> None:
    emergency = CONFIG.routes.find(said)[0]
    assert emergency.name == route
    first, second = talk([{"message": said, "language": "pl"}, "600 700 800"])
    assert first.reply.startswith(emergency.answer[language]), "what to do comes first"
    assert first.reply.endswith(emergency.ask[language])
    assert emergency.told[language].format(contact=describe_phone("+48600700800")) in second.reply
    assert not first.heard.is_about_lead


def test_a_yes_for_an_address_that_was_not_shown_grants_nothing() -> None:
    asked = "remont 50 m2 100 tys od zaraz jan@example.com"
    assert talk([asked, {"message": "tak", "email": "ola@example.com"}])[-1].state.consent is None
    assert talk([asked, "literówka: ola@example.com", "tak"])[-1].state.consent == "given"


@given(st.lists(st.text(max_size=200), min_size=1, max_size=5))
@example(["remont", "0 \u0301 1 m"])  # an accent by itself
def test_any_text_is_answered(turns: list[str]) -> None:
    assert talk(list(turns))[-1].reply


@pytest.mark.parametrize("refusal", ["nie", "nie zgadzam się"])
def test_a_hostile_refusal_of_an_open_consent_is_read_in_linear_time(refusal: str) -> None:
    start = time.process_time()
    talk(
        ["remont 50 m2, od maja, 90 tys, a@example.com", "hmm", "Ola", refusal + "dzięk" * 25 + "?"]
    )
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "message",
    ["790 554 123 po 16", "790554123, 17-19", "790 554 123, nie dzwonić w piątek"],
)
def test_staff_read_when_to_call(message: str) -> None:
    assert talk(["remont łazienki 5 m2", message])[-1].state.said[-1:] == (message,)
    assert talk(["nie, dziękuję", message])[-1].state.said[-1:] == (message,)


def test_a_new_address_is_asked_for_consent_in_the_whole_wording() -> None:
    wording = CONFIG.texts["pl"]["consent_wording"]
    asked = ["chcę zapisać się do newslettera", "jan@example.com", "co to znaczy?"]
    *_, changed, agreed = talk([*asked, "jednak jan2@example.com", "tak, zgadzam się"])
    assert wording in changed.reply
    assert changed.state.wording == wording
    assert agreed.state.consent == "given"


def test_a_range_of_area_keeps_both_ends_until_another_area_is_said() -> None:
    ranged, other = talk(["remont 30-40 m2, 50-60 tys", "jednak 50 m2"])
    assert "30-40 m²" in ranged.reply
    assert (ranged.state.facts.area_from, ranged.state.facts.area) == (30, 40)
    assert (other.state.facts.area_from, other.state.facts.area) == (None, 50)
    assert (other.state.facts.budget_from, other.state.facts.budget) == (50_000, 60_000)
