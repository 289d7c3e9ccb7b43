"""What people answer to the question of consent, and what they say of mails at any other time."""

import json
from collections.abc import Iterable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest

from services.followups.reading.consent_answer import Answer, answer, barred
from services.followups.reading.kinds import TABLES, Kinds

EXAM: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "contracts/consent_answers.json").read_text(encoding="utf-8")
)
LANGUAGES = ("pl", "en", "de", "uk")

Heard = list[tuple[str, Answer | None]]


def _heard(texts: Iterable[str], language: str, asked: Any, *, agreed: bool = False) -> Heard:
    return [(text, answer(text, language, asked, agreed=agreed)) for text in texts]


def _anytime(meaning: str, language: str) -> list[str]:
    return [text for spoken, text in EXAM["anytime"][meaning] if spoken == language]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("said", "asked", "meant"),
    [
        ("yes", "consent", {"yes"}),
        ("no", "consent", {"no"}),
        ("unclear", "consent", {None, "question"}),
        ("yes", "area", {None}),
    ],
)
def test_only_a_whole_yes_to_the_question_of_consent_grants_and_a_no_refuses(
    language: str, said: str, asked: Any, meant: set[Answer | None]
) -> None:
    heard = _heard(EXAM[language][said], language, asked)
    assert [each for each in heard if each[1] not in meant] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("asked", ["area", None])
def test_a_withdrawal_is_heard_in_any_turn(language: str, asked: Any) -> None:
    texts = _anytime("withdrawal", language)
    heard = _heard(texts, language, asked) + _heard(texts, "pl", asked)  # whatever the talk was in
    assert [each for each in heard if each[1] != "no"] == []


def test_who_agreed_takes_it_back_in_few_words() -> None:
    heard = _heard(EXAM["anytime"]["after_yes"], "pl", None, agreed=True)
    assert [each for each in heard if each[1] != "no"] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("asked", "agreed"), [(None, True), ("area", False)])
def test_nothing_else_takes_a_yes_back_nor_does_a_no_to_another_question(
    language: str, asked: Any, *, agreed: bool
) -> None:
    heard = _heard(_anytime("nothing", language), language, asked, agreed=agreed)
    assert [each for each in heard if each[1] == "no"] == []


@pytest.mark.parametrize(
    ("kind", "bars"), [("another", "another"), ("child", "child"), ("own", None)]
)
def test_another_persons_mailbox_and_a_child_are_barred_and_an_adult_is_not(
    kind: str, bars: str | None
) -> None:
    assert [text for text in EXAM["mailboxes"][kind] if barred(text) != bars] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("beside", ["za miesiąc", "ale", "mama", "5", "?", "…", "🙄", '"'])
def test_one_foreign_word_makes_any_yes_none(language: str, beside: str) -> None:
    heard = _heard((f"{yes} {beside}" for yes in EXAM[language]["yes"]), language, "consent")
    assert [each for each in heard if each[1] == "yes"] == []


def test_a_mistyped_word_is_read_as_the_one_that_was_meant() -> None:
    kinds = Kinds({"yes": "zgadzam sie, piszcie, zgoda", "beside": "nieduzo"})
    assert [kinds.of([word, "sie"]) for word in ("zgadzma", "zgadam", "zgadzamm")] == ["y"] * 3
    assert [kinds.of([word]) for word in ("zgdoa", "piscie")] == ["y", "y"]
    for another in ("zgody", "zgadza", "pisze", "rzgoda", "niezgoda", "nieduze"):
        assert kinds.of([another]) == "."


def test_words_of_every_kind_are_written_as_messages_are_read() -> None:
    """Lower case, without diacritics or punctuation: another entry would never be found."""
    entries = [
        entry.strip()
        for table in TABLES.values()
        for part in table.values()
        for kind in part.values()
        for entry in kind.replace("\n", ",").split(",")
    ]
    assert [
        each for each in entries if set(each) & set("ąćęłńóśźżäöüßABCDEFGHIJKLMNOPQRSTUVWXYZ.!-")
    ] == []


def test_a_plain_withdrawal_is_heard_in_any_order_of_its_words() -> None:
    polite = ("", "proszę ", "bardzo proszę ", "prosiłbym ")
    whom = ("", "do mnie ", "do mnie już ", "już do mnie ", "już ", "do mnie więcej ")
    verbs = ("pisać", "kontaktować się", "wysyłać ofert", "mailować", "dzwonić")
    said = [f"{p}{o}nie {v}" for p, o, v in product(polite, whom, verbs[:-1])]
    said += [f"{p}nie {v} {o}".strip() for p, o, v in product(polite, whom, verbs[:-1])]
    for p, o, (one, other) in product(polite, whom, permutations(verbs, 2)):
        said += [f"{p}{o}nie {one}{also}nie {other}" for also in (" i ", " ani ", " oraz ", ", ")]
    assert [each for each in _heard(said, "pl", None, agreed=True) if each[1] != "no"] == []
