"""What is remembered of messages that say the same in other words and languages."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from services.followups.dialogue.state import State
from tests.support import dialogues

READINGS: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("readings.toml").read_text(encoding="utf-8")
)["reading"]


def remembered(said: str) -> dict[str, Any]:
    """Return what a conversation, its messages between `|`, leaves behind."""
    state = State()
    for message in said.split(" | "):
        state = dialogues.answer(state, message).state
    return {**state._asdict(), **state.facts._asdict()}


@pytest.mark.parametrize(
    ("said", "is_"), [(said, each["is"]) for each in READINGS for said in each["said"]]
)
def test_what_a_message_says_is_remembered_in_whatever_words(
    said: str, is_: dict[str, Any]
) -> None:
    found = remembered(said)
    assert {name: found[name] or False for name in is_} == is_


@pytest.mark.parametrize("time", ["proszę dzwonić najlepiej po 17", "please call after 5 pm"])
def test_the_time_of_a_call_is_kept_wherever_a_long_message_says_it(time: str) -> None:
    long = "mieszkanie w bloku z wielkiej płyty, do wymiany wszystko poza oknami, a potem malowanie"
    for message in (f"{time}. {long}, {long}, {long}", f"{long}, {long}, {long}, {time}"):
        assert time in remembered(message)["call_time"]
