"""Single messages, and all facts in them."""

import json
from datetime import date
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from services.followups.reading import language, name, understand
from tests.support import dialogues
from tests.support.shipped import FOLLOWUPS

ROOT = Path(__file__).parents[3]
EXAM: dict[str, Any] = json.loads((ROOT / "tests/contracts/facts.json").read_text(encoding="utf-8"))
TODAY = date.fromisoformat(EXAM["today"])
WORKS = FOLLOWUPS.works
CASES = [case for cases in EXAM.values() if isinstance(cases, list) for case in cases]


def heard(case: list[Any]) -> dict[str, Any]:
    asked = case[2] if len(case) > 2 else None
    understood = understand(case[0], today=TODAY, asked=asked, works=WORKS)
    known = dialogues.by_date(understood.facts.known())
    known.pop("wish", None)
    if known.get("currency") == "PLN":
        del known["currency"]
    return known


def test_each_contact_is_read_as_its_writer_meant_it() -> None:
    """Other facts have a bar below: an error there costs a tap, and a lost contact the lead."""
    contacts = ("email", "phone")
    read = [(case, heard(case)) for case in CASES]
    wrong = [(case, known) for case, known in read
             if any(known.get(name) != case[1].get(name) for name in contacts)]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize(
    ("spoken", "message"),
    [(spoken, message) for spoken, messages in EXAM["language"].items() for message in messages],
)
def test_the_language_of_a_message_is_detected(spoken: str, message: str) -> None:
    assert language.of(message, "pl" if spoken != "pl" else "en") == spoken


@pytest.mark.parametrize(
    "message", ["600 700 800", "jan@example.com", "ok", "80 m2", "Jan Müller", "100k", ""]
)
def test_a_message_without_a_language_keeps_the_current_one(message: str) -> None:
    for current in EXAM["language"]:
        assert language.of(message, current) == current


@pytest.mark.parametrize(
    ("first", "addressed"),
    [
        ("Krzysztof", "Panie Krzysztofie"), ("Anna Nowak", "Pani Anno"), ("Kasia", "Pani Kasiu"), ("Marek", "Panie Marku"), ("Piotr", "Panie Piotrze"),
        ("Paweł", "Panie Pawle"), ("Wojciech", "Panie Wojciechu"), ("Maria", "Pani Mario"), ("Jan", "Panie Janie"), ("Łukasz", "Panie Łukaszu"),
        ("Ola", "Pani Olu"), ("Kuba", "Panie Kubo"), ("Agnieszka", "Pani Agnieszko"), ("Michał", "Panie Michale"), ("Xavier", None), ("firma", None),
    ],
)  # fmt: skip
def test_a_name_is_put_in_the_vocative_or_left_out(first: str, addressed: str | None) -> None:
    assert name.addressed(first) == addressed


ADDRESSES = (
    "jan@wp.pl", "Jan.Kos@firma.com.pl", "d.kwiatkowska@liceum9.edu.pl", "barbara.zak@sp12.krakow.pl", "jan.kos@gmail.com", "maj@biuro.lodz.pl",
    "marzec_80m2@o2.pl", "250tys@onet.pl", "JAN@WP.PL", "biuro@nowy-sacz.eu", "ewa@studio.design", "w.maju@kwiecien.com", "o'brien@bud-max.info", "ola@kadry.it.firma.pl",
)  # fmt: skip
BEFORE = ("", "Proszę pisać na ", "mail: ", "(", "telefon 600 700 800, ")
AFTER = tuple(
    stop + word
    for stop in (". ", ", ", " ", "; ", "! ", ").\n", ".", "\n")
    for word in (
        "Pozdrawiam", "pozdrawiam", "Z poważaniem", "Dziękuję", "dziękuję", "Proszę o kontakt", "Tel: 600 700 800", "Dzwonić rano", "A kiedy oddzwonicie?", "I co dalej?",
        "Mieszkanie 60 m2, budżet 100 tys.", "To mój adres", "Czekam", "Szukam ekipy", "", "It is mine", "Danke", "Jestem po 15",
    )
)  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_read_whole_whatever_stands_around_it(address: str) -> None:
    """No part of it is read as a date (`jan`), a town, an area or a budget."""
    wrong: list[tuple[str, str, dict[str, Any]]] = []
    for before, after in zip(cycle(BEFORE), AFTER, strict=False):
        known = heard([f"{before}{address}{after}"])
        expected: dict[str, Any] = {"email": address}
        if "600" in before + after:
            expected |= {"phone": "+48600700800"}
        if "Mieszkanie" in after:
            expected |= {"area": 60.0, "budget": 100_000}
        if known != expected:
            wrong.append((before, after, known))
    assert wrong == []


@pytest.mark.parametrize(
    ("message", "asked", "facts"),
    [
        ("100-150 m²", "budget", {"area": 150.0}),
        ("jednak nie 80 metrów, tylko 60", None, {"area": 60.0}),
        ("na jedną 50 tys czyli razem 150", "area", {"budget": 150_000}),
        ("tak na 100%", "area", {}),
        ("pokój dla 8-latka", None, {}),
        ("ul. Lea 12 m. 4", None, {}),
        ("45m. 60tys.", None, {"area": 45.0, "budget": 60_000}),
        ("0 m2, salon", None, {}),
        ("Q0 2027", None, {}),
        ("0 półrocze 2027", None, {}),
    ],
)
def test_a_number_has_its_unit_or_that_of_the_one_beside_it(
    message: str, asked: str | None, facts: dict[str, Any]
) -> None:
    assert heard([message, {}, asked]) == facts


@pytest.mark.parametrize("number", ["601 234 567", "601-234-567", "601234567", "+48 601 234 567"])
@pytest.mark.parametrize(
    "street",
    ["ul. Długa", "ul. Długa 12", "ul. Wieczysta. Tel", "ul. Kobierzynska", "na osiedlu tęczowym", "os. Kalinowe 4/12,"],
)  # fmt: skip
def test_a_phone_number_is_no_part_of_the_street_before_it(street: str, number: str) -> None:
    for after in ("", " Anna", ", 60 m2"):
        facts = understand(f"{street} {number}{after}", today=TODAY).facts
        assert facts.phone == "+48601234567", (street, number, after)
        assert facts.area == (60.0 if "m2" in after else None)


@pytest.mark.parametrize(
    ("name", "precision", "recall"),
    [("phone", 0.96, 0.98), ("email", 0.96, 0.98), ("area", 0.96, 0.94), ("budget", 0.96, 0.94),
     ("start", 0.96, 0.94), ("city", 0.9, 0.9), ("name", 0.9, 0.9)],
)  # fmt: skip
def test_facts_are_read_with_the_promised_recall_and_precision(
    name: str, precision: float, recall: float
) -> None:
    counted = dialogues.by_fact()[name]
    assert (counted.precision or 0) >= precision
    assert (counted.recall or 0) >= recall
