"""The score of a lead: points for known facts, each with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

TOP_SCORE = 100

LEAD_STATES = ("new", "taken", "won", "lost", "not_a_lead")


@dataclass(frozen=True, slots=True)
class Rule:
    points: int
    reason: str
    known: tuple[str, ...]
    """The rule holds when all these facts are known …"""
    at_least: float | None = None
    """… and the first of them is a number of at least this."""


class Score(NamedTuple):
    points: int
    reasons: tuple[str, ...]


def score(facts: Mapping[str, object], rules: Sequence[Rule]) -> Score:
    """Add up the points of the rules that hold, clamped to 0..100."""
    held = [rule for rule in rules if _holds(rule, facts)]
    points = max(0, min(TOP_SCORE, sum(rule.points for rule in held)))
    return Score(points, tuple(f"{rule.reason} ({rule.points:+d})" for rule in held))


def _holds(rule: Rule, facts: Mapping[str, object]) -> bool:
    for fact in rule.known:  # any() with a generator costs twice as much
        if facts.get(fact) is None:
            return False
    if rule.at_least is None:
        return True
    value = facts[rule.known[0]]
    return isinstance(value, int | float) and value >= rule.at_least


def changed(notified: Mapping[str, object] | None, known: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of facts that differ from what staff were last notified of."""
    before = notified or {}
    names = dict.fromkeys((*known, *before))
    for part in ("budget_range", "area_range"):  # a part of the budget, of the area
        names.pop(part, None)
    return tuple(name for name in names if known.get(name) != before.get(name))
