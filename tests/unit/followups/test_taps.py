"""What a visitor may tap instead of typing, and what each tap does."""

import dataclasses
import re
from itertools import pairwise
from typing import Any

import pytest

from services.followups.dialogue.taps import Unfit, Value
from services.followups.rules.fact_texts import for_lead, summary
from tests.support.dialogues import TODAY, Visitor
from tests.support.shipped import FOLLOWUPS as CONFIG

MAIL: Value = ("email", "jan@example.com")
PHONE: Value = ("phone", "+48600700800")


def at_consent() -> Visitor:
    visitor = Visitor()
    visitor.says("Remont łazienki 8 m2, budżet 40 tys., od marca, jan@example.com")
    assert visitor.ask["kind"] == "consent"
    return visitor


@pytest.mark.parametrize("language", ["pl", "en"])
def test_a_whole_request_can_be_tapped_and_means_the_same_in_each_language(language: str) -> None:
    visitor, kinds = Visitor(language), []
    steps: list[tuple[str | None, Value | None]] = [
        ("quote", None), ("whole", None), ("30-60", None), (None, ("number", 45000)),
        ("2027-03", None), (None, MAIL), ("yes", None),
    ]  # fmt: skip
    for choice, value in steps:
        kinds.append(visitor.ask["kind"])
        assert visitor.taps(choice, value)
    assert kinds == ["choice", "choice", "number", "number", "month", "phone", "consent"]
    facts = visitor.state.facts
    assert (facts.area, facts.area_from) == (60, 30)
    assert (facts.budget, facts.currency, facts.start) == (45000, "PLN", "2027-03")
    assert (facts.email, facts.wish) == ("jan@example.com", CONFIG.texts[language]["tap_whole"])
    assert visitor.state.consent == "given"
    assert visitor.state.wording == CONFIG.texts[language]["consent_wording"]
    assert visitor.card["area"].startswith("30-60")


def test_the_last_band_has_no_upper_end_on_the_card_and_for_sales() -> None:
    visitor = Visitor()
    for choice in ("quote", "whole", "150-", "250000-"):
        visitor.taps(choice)
    assert (visitor.card["area"], visitor.card["budget"]) == (
        "ponad 150 m²",
        "ponad 250\xa0000\xa0zł",
    )
    assert "ponad 150 m² · ponad 250\xa0000\xa0zł" in summary(for_lead(visitor.state.facts), "pl")
    visitor.says("jednak 300 tys.")
    assert visitor.card["budget"] == "300\xa0000\xa0zł"


@pytest.mark.parametrize(
    ("said", "labels", "typed", "fact"),
    [
        (["Remont łazienki", "28 lub 32 m2"], ["28 m²", "32 m²"], "32", ("area", 32)),
        (["Mieszkanie 60 m2 albo 65 m2"], ["60 m²", "65 m²"], "65 metrów", ("area", 65)),
        (["Remont, 20 tys albo 30 tys"], ["20 000 zł", "30 000 zł"], "30 tys.", ("budget", 30000)),
        (["Kitchen, 40k or 50k"], ["40 000 zł", "50 000 zł"], "50k", ("budget", 50000)),
        (
            ["Remont 50 m2, po świętach albo w lutym"],
            ["po Bożym Narodzeniu 2026", "luty 2027"],
            "w lutym",
            ("start", "2027-02"),
        ),
    ],
)
def test_of_two_values_that_may_both_be_meant_one_is_asked_for(
    said: list[str], labels: list[str], typed: str, fact: tuple[str, Any]
) -> None:
    tapping, typing = Visitor(), Visitor()
    for visitor in (tapping, typing):
        for each in said:
            visitor.says(each)
        offered = [each["label"].replace("\xa0", " ") for each in visitor.ask["choices"]]
        assert (offered, visitor.state.facts.known().get(fact[0])) == (labels, None)
        assert visitor.ask["label"] in visitor.reply
    assert tapping.taps("2")
    typing.says(typed)
    assert [getattr(each.state.facts, fact[0]) for each in (tapping, typing)] == [fact[1]] * 2


def test_who_does_not_say_which_of_two_values_is_meant_has_both_told() -> None:
    visitor = Visitor()
    visitor.says("Remont mieszkania, 60 m2 albo 65 m2, 600 700 800")
    visitor.says("od marca")
    assert (visitor.state.facts.area, visitor.state.either) == (None, ())
    assert "60 m2 albo 65 m2" in str(visitor.state.facts.wish)
    assert "60 m2 albo 65 m2" in " ".join(visitor.state.said)


def test_of_two_values_the_one_that_is_known_is_not_the_correction() -> None:
    visitor = Visitor()
    visitor.says("Remont mieszkania 32 m2")
    visitor.says("sorry 28, 32 to z balkonem")
    assert visitor.state.facts.area == 28


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ("Remont łazienki", "do 5 m²"),
        ("kuchnia i toaleta", "do 5 m²"),
        ("Remont łazienki i salonu", "do 30 m²"),
        ("mieszkanie z kuchnią", "do 30 m²"),
        ("malowanie", "do 30 m²"),
    ],
)
def test_the_bands_of_a_kitchen_or_a_bathroom_are_smaller(said: str, first: str) -> None:
    visitor = Visitor()
    visitor.says(said)
    assert visitor.ask["choices"][0]["label"] == first


def test_a_number_within_a_band_that_was_tapped_counts() -> None:
    visitor = Visitor()
    for choice in ("quote", "whole", "60-100"):
        visitor.taps(choice)
    visitor.says("trzypokojowe, 64 metry, 2 piętro bez windy")
    assert (visitor.state.facts.area, visitor.state.facts.area_from) == (64, None)


def test_each_question_but_the_contact_can_be_skipped_and_is_not_asked_again() -> None:
    visitor = Visitor()
    visitor.says("remont")
    asked = []
    while visitor.ask["skippable"]:
        asked.append(visitor.ask["id"].partition("-")[0])
        visitor.taps("skip")
    assert asked == ["area", "budget", "start"]
    assert visitor.ask["kind"] == "phone"
    with pytest.raises(Unfit):
        visitor.taps("skip")
    visitor.taps(value=PHONE)
    assert "600" in visitor.reply
    assert "?" not in visitor.reply


def test_who_skips_twice_and_wants_nothing_that_is_known_is_only_offered_a_contact() -> None:
    visitor = Visitor()
    for choice in ("quote", "skip", "skip"):
        visitor.taps(choice)
    assert visitor.ask["kind"] == "phone"
    assert "można tu wpisać" in visitor.reply
    assert "?" not in visitor.reply


def test_a_consent_that_is_skipped_is_neither_given_nor_refused() -> None:
    visitor = at_consent()
    assert visitor.taps("skip")
    assert (visitor.state.consent, visitor.ask) == (None, {})
    assert CONFIG.texts["pl"]["consent_left"] in visitor.reply


def test_a_yes_to_an_older_question_grants_nothing() -> None:
    visitor = at_consent()
    shown = visitor.ask
    visitor.says("A ile trwa remont?")
    assert not visitor.taps("yes", ask=shown["id"], wording=shown["wording"]["sha256"])
    assert visitor.state.consent is None


def test_a_yes_counts_also_where_the_wording_was_explained() -> None:
    visitor = at_consent()
    visitor.says("Jakie informacje i jak często?")
    assert visitor.state.asked["explained"]
    assert visitor.taps("yes")
    assert visitor.state.consent == "given"


@pytest.mark.parametrize("wording", ["", "0" * 64])
def test_a_no_counts_however_old_it_is(wording: str) -> None:
    visitor = at_consent()
    old = visitor.ask["id"]
    assert visitor.taps("yes")
    visitor.says("dziękuję")
    assert visitor.taps("no", ask=old, wording=wording)
    assert (visitor.state.consent, visitor.answer) == ("refused", "no")


@pytest.mark.parametrize(
    ("wording", "more"), [(None, ["yes-marketing-phone"]), ("Zgadzam się?", [])]
)
def test_a_wording_of_before_offers_nothing_that_only_the_new_one_grants(
    wording: str | None, more: list[str]
) -> None:
    texts = {"pl": {**CONFIG.texts["pl"], "tap_marketing:phone": "Tak, telefonicznie"}}
    taps = dataclasses.replace(CONFIG.taps, grants=("marketing", "marketing:phone"), texts=texts)
    state = at_consent().state
    facts = state.facts._replace(phone="+48600700800")
    ask = taps.ask(state._replace(facts=facts, wording=wording or state.wording), TODAY)
    assert ask is not None
    assert [each["id"] for each in ask["choices"]] == ["yes", *more, "no"]


def test_a_no_is_heard_in_the_language_of_the_page_after_nothing_but_taps() -> None:
    visitor = Visitor("en")
    for tap in ("quote", "whole", "30-60", "skip", "asap", "email"):
        visitor.taps(tap)
    visitor.taps(value=MAIL)
    assert visitor.ask["kind"] == "consent"
    visitor.says("no")
    assert (visitor.state.consent, visitor.answer) == ("refused", "no")


def test_a_no_from_a_chat_that_is_forgotten_asks_for_the_address() -> None:
    visitor = Visitor()
    assert visitor.taps("no", ask="consent-7")
    assert visitor.state.consent == "refused"
    assert CONFIG.texts["pl"]["withdraw_where"] in visitor.reply


@pytest.mark.parametrize(
    ("choices", "tap", "at"),
    [
        ([], {"choice": "pizza"}, "choice"),
        ([], {"value": ("number", 5)}, "value"),
        (["quote", "kitchen"], {"choice": "30-61"}, "choice"),
        (["quote", "kitchen"], {"value": ("number", 0)}, "value"),
        (["quote", "kitchen"], {"value": ("number", 100_001)}, "value"),
        (["quote", "kitchen"], {"value": PHONE}, "value"),
        (["quote", "kitchen", "skip"], {"value": ("number", 1e12)}, "value"),
        (["quote", "kitchen", "skip"], {"value": ("number", 60)}, "value"),
        (["quote", "kitchen", "skip", "skip"], {"value": ("month", "2026-10")}, "value"),
        (["quote", "kitchen", "skip", "skip"], {"value": ("month", "2026-11-24")}, "value"),
        (["quote", "kitchen", "skip", "skip"], {"value": ("month", "2037-01")}, "value"),
        (["human"], {"value": ("number", 600700800)}, "value"),
        (["human", "email"], {"choice": "email"}, "choice"),
        (["quote"], {"ask": "card", "choice": "area"}, "choice"),
        (["quote"], {"ask": "card", "choice": "currency"}, "choice"),
    ],
)
def test_what_is_not_offered_is_refused_by_its_field(
    choices: list[str], tap: dict[str, Any], at: str
) -> None:
    visitor = Visitor()
    for choice in choices:
        visitor.taps(choice)
    before = visitor.state
    with pytest.raises(Unfit) as refused:
        visitor.taps(**tap)
    assert refused.value.field == f"tap.{at}"
    assert visitor.state == before


def test_a_conversation_of_a_release_that_counted_no_replies_goes_on_with_its_question() -> None:
    visitor = at_consent()
    visitor.state = visitor.state._replace(replies=0)
    assert visitor.ask["kind"] == "consent"


def test_a_fact_of_the_card_is_asked_again_and_replaced() -> None:
    visitor = Visitor()
    visitor.says("remont kuchni 12 m2, budżet 60 tys., od marca 2027, 600 700 800")
    for name, tap, now in (
        ("area", {"value": ("number", 14.5)}, "14,5 m²"),
        ("area", {"choice": "10-15"}, "10-15 m²"),
        ("budget", {"choice": "120000-250000"}, "120\xa0000-250\xa0000\xa0zł"),
        ("start", {"choice": "asap"}, "jak najszybciej"),
        ("wish", {"choice": "bathroom"}, "Łazienka"),
        ("phone", {"value": ("phone", "+48221234567")}, "+48\xa022\xa0123\xa045\xa067"),
    ):
        assert visitor.taps(name, ask="card")
        assert visitor.said[-1].startswith("Zmień: ")
        assert visitor.taps(**tap)
        assert visitor.card[name] == now


@pytest.mark.parametrize(
    ("says", "number", "phone"),
    [
        ("Guten Tag, ich möchte mein Bad renovieren", "030 12345678", "+493012345678"),
        ("Добрий день, потрібен ремонт ванної", "(067) 123 45 67", "+380671234567"),
        ("Здравствуйте, нужен ремонт ванной", "8 916 123-45-67", "+79161234567"),
        ("remont łazienki 6 m2, budżet 60 tys., od marca", "0 22 123 45 67", "+48221234567"),
        ("remont łazienki 6 m2, budżet 60 tys., od marca", "030 12345678", None),
    ],
)
def test_a_number_in_the_field_is_of_the_country_of_the_talk_or_is_asked_about(
    says: str, number: str, phone: str | None
) -> None:
    typed, written = Visitor(), Visitor()
    for visitor in (typed, written):
        visitor.says(says)
    typed.taps(value=("phone", number))
    written.says(number)
    for visitor in (typed, written):
        assert visitor.state.facts.phone == phone
        assert phone or (number in visitor.state.said and number in visitor.reply)


def test_a_change_can_be_skipped_and_keeps_the_fact() -> None:
    visitor = Visitor()
    visitor.says("remont kuchni 12 m2, 600 700 800")
    for name in ("area", "phone"):
        visitor.taps(name, ask="card")
        assert visitor.taps("skip")
    assert (visitor.state.facts.area, visitor.state.facts.phone) == (12, "+48600700800")


@pytest.mark.parametrize(("choice", "email"), [("yes", "ala@gmail.com"), ("no", "ala@gmial.com")])
def test_an_address_that_looks_mistyped_is_asked_about(choice: str, email: str) -> None:
    visitor = Visitor()
    visitor.says("remont kuchni, ala@gmial.com")
    assert "ala@gmail.com" in visitor.ask["label"]
    visitor.taps(choice)
    assert visitor.state.facts.email == email
    assert visitor.state.consent is None


@pytest.mark.parametrize("way", ["tapped", "typed"])
@pytest.mark.parametrize(("choice", "topic"), [("yes", "complaint"), ("no", None)])
def test_a_defect_of_unknown_works_is_asked_about_and_not_guessed(
    choice: str, topic: str | None, way: str
) -> None:
    visitor = Visitor()
    visitor.says("Dzień dobry, płytki się odklejają")
    assert [each["id"] for each in visitor.ask["choices"]] == ["yes", "no"]
    assert visitor.state.route is None
    if way == "tapped":
        visitor.taps(choice)
    else:
        visitor.says("tak" if choice == "yes" else "nie")
    route = CONFIG.routes.named(visitor.state.route)
    assert (route and route.topic) == topic
    assert "płytki się odklejają" in "".join(visitor.state.said)
    visitor.says("płytki się odklejają")
    assert CONFIG.routes.named("perhaps_complaint").answer["pl"] not in visitor.reply  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "said", ["Tak, ale chodzi o nowe prace", "tak myślałem o łazience", "Tak, o nową łazienkę"]
)
def test_a_yes_that_turns_to_new_works_files_no_complaint_and_is_asked_once_more(said: str) -> None:
    visitor = Visitor()
    visitor.says("Dzień dobry, płytki się odklejają")
    label = visitor.ask["label"]
    visitor.says(said)
    assert (visitor.state.route, visitor.ask["label"]) == (None, label)
    visitor.says(said)
    assert (visitor.state.route, visitor.state.offered) == (None, None)


@pytest.mark.parametrize(
    ("chip", "topic"), [("complaint", "complaint"), ("emergency", "emergency"), ("human", None)]
)
def test_a_chip_that_needs_a_person_goes_the_way_of_the_word(chip: str, topic: str | None) -> None:
    visitor = Visitor()
    visitor.taps(chip)
    route = CONFIG.routes.named(visitor.state.route)
    assert route is not None
    assert route.topic == topic
    assert visitor.state.wants_call == (chip == "human")
    assert visitor.state.said == tuple(visitor.said), "staff read which chip it was"
    assert (visitor.ask["kind"], visitor.ask["skippable"]) == ("phone", False)


def test_a_guest_in_another_language_taps_only_the_kind_of_contact() -> None:
    visitor = Visitor("de")
    visitor.says("Guten Tag, wir möchten unser Bad, 8 m2, renovieren lassen.")
    assert visitor.ask["label"] == CONFIG.handover["de"]["change_phone"]
    visitor.taps("email")
    assert visitor.reply == CONFIG.handover["de"]["change_email"]
    visitor.taps(value=MAIL)
    assert visitor.state.facts.email == "jan@example.com"
    assert visitor.state.consent is None


def test_a_german_guest_reads_and_changes_what_is_noted_on_the_card() -> None:
    visitor = Visitor("de")
    visitor.says("Guten Tag, wir möchten unser Bad, 8 m2, renovieren lassen.")
    visitor.says("0600 700 800")
    card = {each["name"]: each["label"] for each in CONFIG.taps.card(visitor.state)}
    assert card == {"area": "Fläche", "phone": "Telefon"}
    with pytest.raises(Unfit):
        visitor.taps("wish", ask="card")
    assert visitor.taps("area", ask="card")
    assert visitor.reply == CONFIG.handover["de"]["ask_area"]
    visitor.taps(value=("number", 9.0))
    assert visitor.state.facts.area == 9
    assert visitor.taps("phone", ask="card")
    assert visitor.reply == CONFIG.handover["de"]["change_phone"]


@pytest.mark.parametrize("language", ["pl", "en"])
@pytest.mark.parametrize(
    "choices", [("whole", "30-60", "30000-60000", "asap"), ("whole", "skip", "skip", "skip")]
)
def test_each_tap_is_answered_with_a_phrase_of_its_own(language: str, choices: Any) -> None:
    visitor, begun = Visitor(language), []
    for choice in ("quote", *choices):
        visitor.taps(choice)
        begun.append(re.split(r"[.:,]", visitor.reply)[0])
    assert all(first != then for first, then in pairwise(begun)), begun
    assert not any(each.endswith("?") for each in begun), begun


@pytest.mark.parametrize(
    ("choices", "price"),
    [(("kitchen", "10-15"), "od 32 000 zł"), (("floors", "30-60"), "60 m²: od 7\xa0200 zł")],
)
def test_the_listed_price_of_tapped_works_stands_beside_the_question_for_the_budget(
    choices: tuple[str, ...], price: str
) -> None:
    visitor = Visitor()
    for choice in ("quote", *choices):
        visitor.taps(choice)
    assert price in visitor.reply
    visitor.taps("0-30000")
    assert "zł/m²" not in visitor.reply
    assert "32 000" not in visitor.reply
