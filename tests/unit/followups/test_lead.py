"""How a lead is scored by the shipped rules."""

from datetime import date
from pathlib import Path

import pytest

from services.followups import config, facts, lead

CONFIG = config.load(Path(__file__).parents[3] / "config/followups.toml")


def points(message: str) -> lead.Score:
    known, _ = facts.read(message, today=date(2026, 11, 25), works=CONFIG.works)
    return lead.score(known.known(), CONFIG.rules)


@pytest.mark.parametrize(
    "message",
    [
        "jan@example.com, 80 m2, 250 tys., od marca",
        "600 700 800, 80 mkw, 90 000 zł, od zaraz",
        "Chcę wykończyć mieszkanie, budżet 200 tys. zł, jan@example.com",
        "I would like a new kitchen, my budget is 60,000 PLN, john@example.com",
    ],
)
def test_a_first_message_with_what_matters_reaches_the_shipped_threshold(message: str) -> None:
    assert points(message).points >= CONFIG.threshold


@pytest.mark.parametrize(
    "message", ["dzień dobry", "ile kosztuje remont?", "jan@example.com", "remont 80 m2 od zaraz"]
)
def test_less_than_that_does_not(message: str) -> None:
    assert points(message).points < CONFIG.threshold


def test_a_score_explains_itself() -> None:
    scored = points("jan@example.com, 250 tys. zł")
    assert scored.reasons == (
        "left an e-mail (+25)", "named a budget (+25)", "budget of 100,000 or more (+10)",
    )  # fmt: skip
    assert scored.points == 60


def test_a_score_stays_between_nought_and_a_hundred() -> None:
    every = [lead.Rule(90, "a", ("email",)), lead.Rule(90, "b", ("email",))]
    assert lead.score({"email": "a"}, every).points == 100
    assert lead.score({"email": "a"}, [lead.Rule(-5, "a", ("email",))]).points == 0


def test_a_rule_with_a_minimum_needs_a_number() -> None:
    rule = lead.Rule(10, "big", ("budget",), at_least=100)
    assert lead.score({"budget": 100}, [rule]).points == 10
    assert lead.score({"budget": 99}, [rule]).points == 0
    assert lead.score({"budget": "much"}, [rule]).points == 0
