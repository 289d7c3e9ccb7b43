"""How a lead is scored by the shipped rules."""

from datetime import date

import pytest

from services.followups.reading import understand
from services.followups.rules import score as lead_score
from tests.support.shipped import FOLLOWUPS as CONFIG


def points(message: str) -> lead_score.Score:
    known = understand(message, today=date(2026, 11, 25), works=CONFIG.works).facts
    return lead_score.score(known.known(), CONFIG.rules)


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
    assert points(message).points >= CONFIG.lead.threshold


@pytest.mark.parametrize(
    "message", ["dzień dobry", "ile kosztuje remont?", "jan@example.com", "remont 80 m2 od zaraz"]
)
def test_a_first_message_with_less_stays_below_the_threshold(message: str) -> None:
    assert points(message).points < CONFIG.lead.threshold


def test_a_score_lists_its_reasons() -> None:
    scored = points("jan@example.com, 250 tys. zł")
    assert scored.reasons == (
        "zostawił(a) e-mail (+25)", "podał(a) budżet (+25)", "budżet 100 000 lub więcej (+10)",
    )  # fmt: skip
    assert scored.points == 60


def test_a_score_is_between_0_and_100() -> None:
    every = [lead_score.Rule(90, "a", ("email",)), lead_score.Rule(90, "b", ("email",))]
    assert lead_score.score({"email": "a"}, every).points == 100
    assert lead_score.score({"email": "a"}, [lead_score.Rule(-5, "a", ("email",))]).points == 0


def test_a_rule_with_a_minimum_needs_a_number() -> None:
    rule = lead_score.Rule(10, "big", ("budget",), at_least=100)
    assert lead_score.score({"budget": 100}, [rule]).points == 10
    assert lead_score.score({"budget": 99}, [rule]).points == 0
    assert lead_score.score({"budget": "much"}, [rule]).points == 0
