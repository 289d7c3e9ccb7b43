"""By category: no contact is lost, no yes is inferred, and every request is passed on."""

import json
import re
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from services.followups import config
from services.followups.dialogue.state import State
from services.followups.rules.facts import Facts
from tests.support import dialogues
from tests.support.shipped import EXAMPLE, FOLLOWUPS


@pytest.mark.parametrize("category", dialogues.categories())
def test_every_lead_and_topic_is_announced_and_no_consent_inferred(category: str) -> None:
    counted = dialogues.tally(category)
    assert counted.wrong_consents == []
    assert counted.lost_leads == []
    assert counted.false_leads == []
    assert counted.not_passed_on == []


@pytest.mark.parametrize("category", dialogues.categories())
def test_a_stated_consent_or_refusal_is_recognised(category: str) -> None:
    for case in dialogues.cases(category):
        if "consent" in case:
            assert dialogues.hold(case["turns"]).consent == case["consent"], case["turns"]


def test_a_refusal_of_mails_does_not_end_the_lead() -> None:
    asked = "remont 50 m2, 100 tys., od maja, a@example.com"
    for answers in (["jednak nie, rozmyśliłam się"], ["tak", "rozmyśliłem się"]):
        seen = dialogues.hold([asked, *answers])
        assert seen.consent == "refused", answers
        assert "lost" not in seen.actions, answers
    assert "lost" in dialogues.hold([asked, "nie, znaleźliśmy inną firmę"]).actions


OPENINGS: dict[str, Any] = json.loads(
    (dialogues.CONTRACTS / "openings.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (kind, each)
        for kind in ("emergency", "complaint", "privacy", "job", "lead", "offer")
        for each in OPENINGS[kind]
    ],
)
def test_a_first_message_reaches_the_right_topic(kind: str, message: str) -> None:
    seen = dialogues.hold([message, "501 502 503"])
    assert seen.topics == (set() if kind in {"lead", "offer"} else {kind})
    assert seen.lead == (kind == "lead")


@pytest.mark.parametrize("case", dialogues.cases("situations") + dialogues.cases("answers"))
def test_the_reply_has_the_required_texts_and_no_others(case: dict[str, Any]) -> None:
    reply = dialogues.hold(case["turns"]).reply
    assert [words for words in case.get("says", ()) if words not in reply] == [], reply
    assert [words for words in case.get("never", ()) if words in reply] == [], reply


@pytest.mark.parametrize(
    ("message", "says", "never"),
    [
        ("robicie w Krakowie?", "Tak, pracujemy tam: Kraków.", "doradca"),
        ("dojeżdżacie do Wieliczki? mam 50 m2", "Tak, pracujemy tam: Wieliczka.", "doradca"),
        ("robicie w Katowicach?", "Na co dzień pracujemy tu: Kraków, Wieliczka.", "Tak, prac"),
        ("na jakim terenie działacie?", "Na co dzień pracujemy tu: Kraków", "doradca"),
        ("mieszkanie w Krakowie, ile kosztuje metr?", "Cena zależy", "Tak, pracujemy"),
    ],
)
def test_the_configured_towns_answer_where_we_work(message: str, says: str, never: str) -> None:
    reply = dialogues.hold([message], towns=("Kraków", "Wieliczka")).reply
    assert says in reply
    assert never not in reply


def test_facts_are_understood_with_the_promised_recall_and_precision() -> None:
    counted = dialogues.tally("leads")
    assert counted.right >= 0.95 * counted.found, counted.wrong_facts
    assert counted.right >= 0.92 * counted.wanted, counted.wrong_facts


def test_a_consent_after_a_withdrawal_is_granted_anew_and_waits_for_the_mailed_link() -> None:
    address = "a@example.com"
    withdrawn = State(
        facts=Facts(email=address, wish="remont", area=50, budget=100_000, start="2027-05"),
        language="pl",
        consent="refused",
        granted_to=address,
        withdrawn_from=address,
        noticed=True,
    )
    asked = dialogues.answer(withdrawn, "jednak zgadzam się na maile z ofertami")
    assert asked.state.asking == "consent"
    agreed = dialogues.answer(asked.state, "tak")
    assert (agreed.state.consent, agreed.state.granted_to) == ("given", None)
    assert "po kliknięciu linku" in agreed.reply


def test_a_later_message_is_read_with_what_was_said_before() -> None:
    wrong = [each for file in ("together", "answers") for each in dialogues.tally(file).wrong_facts]
    assert wrong == []


MONOTONOUS = [
    ["nie wiem"] * 9,
    ["halo?"] * 9,
    ["ile to kosztuje?"] * 6,
    ["czuję gaz w kuchni", *["co robić?"] * 6],
    ["jesteście oszustami"] * 6,
    ["dzięki"] * 5,
    ["nie mam telefonu ani maila"] * 6,
    ["remont 50 m2, 80 tys, od maja, jan@example.com", *["nie rozumiem"] * 6],
    ["Hilfe, ich brauche eine neue Küche", *["bitte schnell, danke"] * 5],
    ["usuńcie moje dane"] * 6,
]


@pytest.mark.parametrize("turns", MONOTONOUS, ids=lambda turns: turns[0])
def test_no_reply_comes_twice_in_a_row(turns: list[str]) -> None:
    state, replies = State(), [""]
    for message in turns:
        turn = dialogues.answer(state, message)
        state = turn.state
        replies.append(turn.reply)
    assert [each for each, after in pairwise(replies) if each == after] == []


def test_the_company_greets_once() -> None:
    shown = dialogues.answer(State(), "dzień dobry, remont", greeted=True)
    assert "automatyczny asystent" not in shown.reply
    plain = dialogues.answer(State(), "dzień dobry, remont")
    assert "automatyczny asystent" in plain.reply
    assert "automatyczny asystent" not in dialogues.answer(plain.state, "łazienka").reply


@pytest.mark.parametrize(
    ("now", "by"),
    [
        ("2026-11-25 08:00", "dziś do 16:00"),
        ("2026-11-25 08:20", "dziś do 17:00"),
        ("2026-11-25 10:00", "jutro do 9:00"),
        ("2026-11-27 16:30", "w poniedziałek do 16:00"),
        ("2026-11-28 23:00", "w poniedziałek do 16:00"),
        ("2026-12-24 20:00", "w poniedziałek do 16:00"),  # after the holidays
        ("2026-11-10 20:00", "w czwartek do 16:00"),  # Independence Day
    ],
)
def test_an_answer_is_promised_by_the_hours_of_the_office(now: str, by: str) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=FOLLOWUPS.office.zone)
    assert FOLLOWUPS.said("{by}", "pl", at) == by
    is_there = FOLLOWUPS.said("{now}", "pl", at)
    assert is_there.startswith("biuro jest teraz czynne") == FOLLOWUPS.office.is_open(at)
    assert "8:00-17:00" in is_there


def test_a_company_without_prices_says_that_it_depends(tmp_path: Path) -> None:
    ours = tmp_path / "company.toml"
    text = (EXAMPLE / "company.toml").read_text(encoding="utf-8")
    ours.write_text(
        re.sub(r"(?m)^(prices|durations|included|quote|answers|phone|towns).*\n", "", text),
        encoding="utf-8",
    )
    configured = config.load(EXAMPLE / "followups.toml", ours)
    price, nobody = (configured.routes.named(name) for name in ("price", "nobody_now"))
    assert price is not None
    assert nobody is not None
    assert "Cena zależy" in price.answer["pl"]
    assert "to zależy" in price.again["pl"]
    assert "zł" not in "".join(price.again.values())
    assert "telefon +" not in nobody.answer["pl"]
    assert "8:00-17:00. Można" in nobody.answer["pl"]


def test_consent_is_a_card_of_its_own_below_a_short_bubble() -> None:
    turn = dialogues.answer(State(), "remont łazienki 6 m2, 40 tys, od maja, jan@example.com")
    ask = FOLLOWUPS.taps.ask(turn.state, dialogues.TODAY)
    assert ask is not None
    assert [each["id"] for each in ask["choices"]] == ["yes", "no"]
    wording = ask["wording"]["text"]
    bubble = turn.reply.replace(wording, "")  # as the widget, the page and React show it
    assert turn.reply.count(wording) == 1
    assert "Administratorem" not in bubble
    assert len(bubble) < 280


def test_who_writes_russian_reads_only_russian_and_is_told_that_a_person_answers() -> None:
    state, said = State(), []
    for message in (
        "сколько стоит ремонт? нужна ванна",
        "метров 5",
        "не дам номер",
        "576 22 33 44",
    ):
        turn = dialogues.answer(state, message)
        state = turn.state
        said.append(turn.reply)
    assert [each for each in said if re.search("[іїєґ]", each)] == []
    assert all("автоматический" in each for each in (said[0], said[-1]))
    assert "По какому номеру" not in said[2]
    assert state.facts.area == 5
    assert dialogues.hold(["нужен ремонт, 576 22 33 44"]).lead
