"""Routing of messages by the shipped phrases."""

import json
from typing import Any

import pytest

from services.followups.reading.phrases import fold, phrase_fault
from services.followups.reading.routing import Route, Routes
from tests.support import dialogues
from tests.support.shipped import FOLLOWUPS

OPENINGS: dict[str, Any] = json.loads(
    (dialogues.CONTRACTS / "openings.json").read_text(encoding="utf-8")
)

ROUTES = ("bot", "abuse", "scope", "price", "human")


def route(name: str, *words: str, unless: tuple[str, ...] = ()) -> Route:
    return Route(name, words, unless)


def found(message: str) -> str | None:
    return next((each.name for each in FOLLOWUPS.routes.find(message)), None)


def test_a_phrase_is_found_in_any_case_and_without_diacritics() -> None:
    routes = Routes([route("a", "zalało nas")])
    assert routes.find("ZALALO NAS!")
    assert routes.find("wczoraj... zalało, nas.")
    assert not routes.find("zalało ich i nas")


def test_a_star_matches_any_ending_and_dots_up_to_four_words() -> None:
    routes = Routes([route("a", "usu* ... dane")])
    for message in ("usuńcie dane", "usunąć proszę wszystkie moje te dane"):
        assert routes.find(message), message
    assert not routes.find("usuńcie proszę jak najszybciej wszystkie te moje dane")


def test_unless_excludes_a_message_from_its_route_only() -> None:
    routes = Routes([route("a", "gaz*", unless=("kuchenka gazowa",)), route("b", "kuchenka")])
    assert [each.name for each in routes.find("kuchenka gazowa")] == ["b"]


def test_of_several_routes_the_first_in_the_file_comes_first() -> None:
    routes = Routes([route("first", "later"), route("second", "sooner")])
    assert [each.name for each in routes.find("sooner or later")] == ["first", "second"]


def test_a_list_matches_each_of_its_phrases_and_plus_needs_both() -> None:
    words = {"we_did": ["*liście", "po was"], "defect": ["pęk*", "nie działa"]}
    routes = Routes([route("a", "{we_did} + {defect}"), route("b", "{defect} kran")], words)
    for message in ("robiliście i pęka", "pękła fuga. Malowaliście.", "gniazdko nie działa po was"):
        assert [each.name for each in routes.find(message)] == ["a"], message
    assert [each.name for each in routes.find("nie działa kran")] == ["b"]
    assert not routes.find("liście pękają")


@pytest.mark.parametrize(
    "phrase", ["", "...", "... a", "ab*", "*a", "*abc*", "a,b", "dwa  *", "a + ", "a + ... b"]
)
def test_an_invalid_phrase_is_named(phrase: str) -> None:
    assert phrase_fault(phrase)


def test_a_request_to_staff_may_be_told_in_two_messages() -> None:
    began, went_on = "robiliście u mnie podłogę", "deski się rozjeżdżają"
    assert all(each.offers for each in FOLLOWUPS.routes.find(went_on)), "it is asked about"
    assert [each.name for each in FOLLOWUPS.routes.find(went_on, before=began)] == ["complaint"]
    asked = "ile kosztuje malowanie"
    matched = FOLLOWUPS.routes.find(went_on, before=asked)
    assert all(each.offers for each in matched), "an answered question is over"


def test_words_are_letters_and_digits() -> None:
    assert fold("Łódź, 12m² – O'Brien") == ("lodz", "12m2", "o", "brien")


def test_minus_excludes_from_its_own_phrase_only() -> None:
    routes = Routes(
        [route("a", "gaz + czuc - {over} - wycen*", "pozar", unless=("stary - nowy",))],
        {"over": ["juz usuniety"]},
    )
    assert routes.find("czuć gaz")
    assert not routes.find("czuć gaz, już usunięty")
    assert not routes.find("czuć gaz, proszę o wycenę")
    assert routes.find("pożar, już usunięty")
    assert not routes.find("pożar, stary")
    assert routes.find("pożar, stary i nowy")


@pytest.mark.parametrize(
    "message",
    [
        "Chcę wykończyć mieszkanie 80 m2, budżet 250 tys.",
        "wymiana instalacji gazowej i kuchenka gazowa",
        "remont po zalaniu, ściany do malowania",
        "jaka gwarancja na prace?",
        "stare płytki odpadają, chcę nową łazienkę",
        "mieszkanie pod wynajem, trzeba odświeżyć",
        "czy wasza ekipa robi też łazienki?",
        "poprzedni wykonawca zrobił fuszerkę, szukam ekipy do poprawek po nim",
        "wynajmuję mieszkanie, odmaluję ściany, żeby odzyskać kaucję",
    ],
)
def test_an_ordinary_request_matches_no_route(message: str) -> None:
    assert found(message) in {None, "price", "guarantee"}


@pytest.mark.parametrize(
    ("name", "message"),
    [(name, each) for name in ROUTES for each in OPENINGS[name]]
    + [(name, each) for name, messages in OPENINGS["routes"].items() for each in messages],
)
def test_a_first_message_has_the_answer_of_its_route(name: str, message: str) -> None:
    assert found(message) == name
