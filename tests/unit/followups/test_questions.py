"""What visitors ask in each language in which it is answered."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.dialogues import Visitor
from tests.support.shipped import FOLLOWUPS

QUESTIONS: dict[str, dict[str, list[str]]] = tomllib.loads(
    Path(__file__).with_name("questions.toml").read_text(encoding="utf-8")
)
OPENINGS = {
    "pl": "Dzień dobry, chcę wyremontować łazienkę, mój numer to 501 502 503",
    "en": "Hello, I want to renovate my bathroom, my number is 501 502 503",
    "de": "Guten Tag, ich möchte mein Bad renovieren, meine Nummer ist 501 502 503",
    "uk": "Добрий день, хочу зробити ремонт ванної, мій номер 501 502 503",
    "ru": "Здравствуйте, хочу сделать ремонт ванной, мой номер 501 502 503",
}


@pytest.mark.parametrize("language", OPENINGS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_is_understood_in_each_language_in_which_it_is_answered(
    name: str, language: str
) -> None:
    route = FOLLOWUPS.routes.named(name)
    assert route is not None
    assert language in route.answer
    asked = QUESTIONS[name]
    for question in asked.get("pl", []) if language == "pl" else asked[language]:
        visitor = Visitor(language)
        visitor.says(OPENINGS[language])
        heard: Any = visitor.says(question).heard
        answered = [each.name for each in heard.answers[:2]]
        assert (heard.of_reply, answered) == (language, [name]), question
