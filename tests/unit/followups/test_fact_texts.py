"""Facts are said as their person said them, and a start still sorts by its date."""

import tomllib
from datetime import date
from pathlib import Path

import pytest

from services.followups.reading import dates, starts
from services.followups.rules import fact_texts
from services.followups.rules.fact_texts import describe_budget, describe_phone, describe_start
from services.followups.rules.facts import Facts

TODAY = date(2026, 11, 25)
WORDS = tomllib.loads(
    (Path(fact_texts.__file__).parent / "start_words.toml").read_text(encoding="utf-8")
)
SAID = tomllib.loads(Path(__file__).with_name("starts.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("words", "said"), SAID.items())
def test_a_start_is_said_as_the_person_named_it(words: str, said: str) -> None:
    start = starts.find(words, TODAY, "start")[1]["start"]
    assert describe_start(start, "pl") == said


def test_what_the_visitor_says_in_one_language_staff_read_in_theirs() -> None:
    start = starts.find("next summer", TODAY, "start")[1]["start"]
    assert describe_start(start, "en") == "in summer 2027"
    assert describe_start(start, "pl") == "latem 2027"
    assert describe_start(start, "de") == "Sommer 2027"


def test_starts_sort_by_their_date_whatever_they_are_called() -> None:
    said = ["po świętach", "za pół roku", "latem", "III kwartał", "po wakacjach", "w grudniu 2027"]
    found = [starts.find(each, TODAY, "start")[1]["start"] for each in said]
    assert found == sorted(found)


def test_every_name_of_a_start_has_its_words_in_both_languages_of_the_form() -> None:
    said = (Path(dates.__file__).parent / "vocabulary/time.toml").read_text(encoding="utf-8")
    feasts, seasons = set(tomllib.loads(said)["feast"]), set(dates.SEASONS)
    parts = {f"{part}{of}" for part in ("early", "mid", "late") for of in ("", "_year")}
    parts |= {"first_half", "second_half", "turn", "half_year", "or", "to", "days"}
    parts |= {"after", "until", "before"}
    names = (
        feasts
        | seasons
        | parts
        | {"quarter", "week", "about", "in_a_year", "in_half_a_year", starts.HANDOVER}
    )
    for language in ("pl", "en"):
        assert names == WORDS[language]["named"].keys()


@pytest.mark.parametrize("language", WORDS)
@pytest.mark.parametrize("start", ["asap", "2027", "2027-03", "2027-03-15", "2027-06 of_old"])
def test_any_stored_start_can_be_said(language: str, start: str) -> None:
    assert "{" not in describe_start(start, language)
    for name in WORDS[language]["named"]:
        assert "{" not in describe_start(f"2027-03 {name}", language)
        assert "{" not in describe_start(f"2027-03-15 {name}", language)


def test_a_new_start_replaces_the_words_of_the_old_one() -> None:
    known = Facts(start="2027-06 summer").learn(Facts(start="2027-06"))
    assert describe_start(str(known.start), "pl") == "czerwiec 2027"


@pytest.mark.parametrize(
    ("phone", "said"),
    [
        ("+48600700800", "+48 600 700 800"),
        ("+48124442020", "+48 12 444 20 20"),
        ("+4915123456789", "+4915123456789"),
    ],
)
def test_a_phone_number_is_grouped_so_that_it_can_be_checked(phone: str, said: str) -> None:
    assert describe_phone(phone).replace("\N{NO-BREAK SPACE}", " ") == said


def test_an_amount_is_written_as_its_language_does() -> None:
    assert describe_budget(60_000, "EUR", "de") == "60.000\N{NO-BREAK SPACE}EUR"
    assert describe_budget(60_000, None, "pl") == "60\N{NO-BREAK SPACE}000\N{NO-BREAK SPACE}zł"


def test_a_budget_given_as_a_range_is_told_with_both_ends() -> None:
    told = fact_texts.summary(
        {"budget": 100_000, "area": 60, "budget_range": [80_000, 100_000]}, "pl"
    )
    assert told.replace("\N{NO-BREAK SPACE}", " ") == "60 m² · 80 000-100 000 zł"
