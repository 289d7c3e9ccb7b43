"""The written conversations of tests/contracts/dialogue, and what each must leave behind."""

import json
import time
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.followups import dialogue, facts

ROOT = Path(__file__).parents[3]
FIXTURES = sorted((ROOT / "tests/contracts/dialogue").glob("*.json"))
CONFIG = tomllib.loads((ROOT / "config/followups.toml").read_text(encoding="utf-8"))["dialogue"]
TODAY = date(2026, 11, 25)


def talk(turns: list[Any], today: date = TODAY) -> list[dialogue.Turn]:
    state, heard = dialogue.State(), []
    for said in turns:
        given_turn = {"message": said} if isinstance(said, str) else dict(said)
        message, agreed = given_turn.pop("message"), given_turn.pop("agreed", None)
        turn = dialogue.turn(
            state,
            message,
            texts=CONFIG["texts"],
            default_language="pl",
            today=today,
            passed=facts.Facts(**given_turn),
            agreed=agreed,
            works=tuple(CONFIG["works"]),
        )
        state = dialogue.State.of(json.loads(json.dumps(turn.state.stored())))
        assert state == turn.state, "a state survives its way through the database"
        heard.append(turn)
    return heard


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_written_conversation_leaves_exactly_what_was_said(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    last = talk(case["turns"], date.fromisoformat(case["today"]))[-1]
    known = last.state.facts.known()
    expected = dict(case["facts"])
    assert bool(known.pop("wish", "")) == expected.pop("wish", False)
    assert known == expected
    assert last.state.consent == case["consent"]
    assert last.state.language == case["language"]
    if "asking" in case:
        assert last.state.asking == case["asking"]


def test_there_are_forty_conversations_or_more() -> None:
    assert len(FIXTURES) >= 40


def test_what_is_known_is_never_asked_again() -> None:
    for turn in talk(["remont łazienki 6 m2", "za miesiąc", "nie powiem", "jan@example.com"]):
        known = turn.state.facts.known()
        assert turn.state.asking not in known


def test_a_reply_asks_for_one_thing_at_most() -> None:
    questions = [text for name, text in CONFIG["texts"]["pl"].items() if name.startswith("ask_")]
    for turn in talk(["hej", "remont", "80 m2", "100 tys", "od maja", "jan@example.com", "tak"]):
        assert sum(question in turn.reply for question in questions) <= 1


def test_consent_is_asked_in_the_configured_wording_which_the_state_keeps() -> None:
    last = talk(["remont 50 m2 100 tys od zaraz jan@example.com"])[-1]
    wording = CONFIG["texts"]["pl"]["consent_wording"]
    assert wording in last.reply
    assert last.state.wording == wording
    assert last.state.consent is None


def test_what_was_understood_is_said_back() -> None:
    reply = talk(["remont 80 mkw, 250 tys., od marca"])[-1].reply
    assert "80 m²" in reply
    assert "250\N{NO-BREAK SPACE}000\N{NO-BREAK SPACE}zł" in reply
    assert "03.2027" in reply


@pytest.mark.parametrize(
    "text",
    ["tak", "Tak!", "tak, zgadzam się", "Jak najbardziej", "wyrażam zgodę", "yes", "I agree"],
)
def test_a_clear_yes_is_one(text: str) -> None:
    assert dialogue.is_clear_yes(text)


@pytest.mark.parametrize(
    "text",
    ["", "tak?", "nie", "tak sobie", "tak, ale nie", "ok", "może tak", "no", "nie zgadzam się",
     "zgoda?", "yes, later", "I don't agree", "of course not", "tak jak mówiłem, remont"],
)  # fmt: skip
def test_anything_less_than_a_clear_yes_is_none(text: str) -> None:
    assert not dialogue.is_clear_yes(text)


@given(st.lists(st.text(max_size=200), min_size=1, max_size=5))
def test_any_text_is_answered(turns: list[str]) -> None:
    assert talk(list(turns))[-1].reply


@pytest.mark.parametrize(
    "hostile",
    ["1" * 4000, "1 " * 2000, "a." * 2000, "a@" * 2000, "budżet " * 500, "1-" * 2000, "m2 " * 1300,
     "jestem " * 570, "A" * 4000, "600 700 80" * 400, "od " * 1300, "+" * 4000, "100 000 " * 500,
     "a@a" + ".a" * 1990, "in a " * 800, "i'm A" * 800, "chce" * 1000],
)  # fmt: skip
def test_a_hostile_message_costs_no_time(hostile: str) -> None:
    start = time.process_time()
    facts.read(hostile[:4000], today=TODAY, asked="budget", works=tuple(CONFIG["works"]))
    assert time.process_time() - start < 0.5
