"""What people answer to the question of consent, and what they say of mails at any other time."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.followups.understanding.consent_answer import answer
from services.followups.understanding.mailbox import barred

EXAM: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "contracts/consent_answers.json").read_text(encoding="utf-8")
)
LANGUAGES = ("pl", "en", "de", "uk")


def _said(meaning: str) -> list[tuple[str, str]]:
    return [(language, text) for language in LANGUAGES for text in EXAM[language][meaning]]


@pytest.mark.parametrize(("language", "text"), _said("yes"))
def test_a_whole_message_that_says_yes_is_a_grant(language: str, text: str) -> None:
    assert answer(text, language, "consent") == "yes"


@pytest.mark.parametrize(("language", "text"), _said("no"))
def test_a_refusal_is_a_withdrawal(language: str, text: str) -> None:
    assert answer(text, language, "consent") == "no"


@pytest.mark.parametrize(("language", "text"), _said("unclear"))
def test_what_is_neither_is_neither_granted_nor_refused(language: str, text: str) -> None:
    assert answer(text, language, "consent") in {None, "question"}


@pytest.mark.parametrize(("language", "text"), _said("yes"))
def test_a_yes_that_answers_another_question_grants_nothing(language: str, text: str) -> None:
    assert answer(text, language, "area") is None


@pytest.mark.parametrize(("language", "text"), EXAM["anytime"]["withdrawal"])
def test_a_withdrawal_is_heard_in_any_turn(language: str, text: str) -> None:
    assert answer(text, language, "area") == "no"
    assert answer(text, language, None) == "no"
    assert answer(text, "pl", None) == "no", "whatever language the talk was in"


@pytest.mark.parametrize("text", EXAM["anytime"]["after_yes"])
def test_who_agreed_takes_it_back_in_few_words(text: str) -> None:
    assert answer(text, "pl", None, agreed=True) == "no"


@pytest.mark.parametrize(("language", "text"), EXAM["anytime"]["nothing"])
def test_nothing_else_takes_a_yes_back(language: str, text: str) -> None:
    assert answer(text, language, None, agreed=True) != "no"


@pytest.mark.parametrize(("language", "text"), EXAM["anytime"]["nothing"])
def test_a_no_to_another_question_withdraws_nothing(language: str, text: str) -> None:
    assert answer(text, language, "area") != "no"


@pytest.mark.parametrize("text", EXAM["mailboxes"]["another"])
def test_another_persons_mailbox_is_recognised(text: str) -> None:
    assert barred(text) == "another"


@pytest.mark.parametrize("text", EXAM["mailboxes"]["child"])
def test_a_child_is_recognised(text: str) -> None:
    assert barred(text) == "child"


@pytest.mark.parametrize("text", EXAM["mailboxes"]["own"])
def test_an_adult_with_a_mailbox_is_not_barred(text: str) -> None:
    assert barred(text) is None
