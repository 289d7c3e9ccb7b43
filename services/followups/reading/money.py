"""Budgets, with their currency: amounts of money, each with what it is for (vocabulary/money.toml)."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

from services.followups.reading import amounts
from services.followups.reading.amounts import AREAS, Amount, Amounts
from services.followups.reading.numbers import in_digits
from services.followups.reading.text import Reading
from services.followups.rules.facts import Question

_LEAST = 100
"""Less is the price of a tile."""
MOST_SAID = 100_000_000
"""A larger number is a phone number or a joke."""
_MOST_BARE = 10_000_000
"""A longer number without a currency is a mistyped phone number."""
_HAS_AMOUNT = re.compile("[0-9]|dych|dysz|st[óo]w|mil|mln|ba[ńn]", re.IGNORECASE)
_NEAR = 12
"""In tokens."""
_WHOSE = ("budget", "other", "did", "own", "has", "work")
"""What an amount may be for; of a word that has several, the first counts."""


def find(text: str, _: date, asked: Question | None) -> Reading:
    if not _HAS_AMOUNT.search(in_digits(text)):
        return text, {}
    said = amounts.read(text)
    found = [*_budgets(said, asked)]
    total = said.total(found)
    if total is None:
        return text, {}
    first, last = found[0], found[-1]
    currency = next((each.currency for each in found if each.value == total), first.currency)
    news: dict[str, Any] = {"budget": round(total), "currency": currency or "PLN"}
    if first is last and first.least is not None and first.least < total:
        news["budget_from"] = round(first.least)
    return said.without((first.start, last.end)), news


def _budgets(said: Amounts, asked: Question | None) -> Iterator[Amount]:
    bare, is_whole = said.bare(said.all("piece part")) if asked == "budget" else ([], False)
    last = 0
    for each in said.numbers:
        if each.unit in AREAS:
            continue
        first = max(last, said.since(each.start, ";!?", _NEAR))
        what = _what(said, each, first)
        number = each
        if each.unit is not None:
            last = each.end
        elif each.value < 1000:
            is_sure = is_whole or (asked == "budget" and each.start == said.amended())
            if each.value < 10 or not (is_sure or _is_meant(said, each, what)):
                continue
            number = replace(each, value=each.value * 1000, least=each.least and each.least * 1000)
        elif each.value >= _MOST_BARE or (
            each.start not in bare and not _is_money(said, each, what, asked)
        ):
            continue
        if _is_budget(said, each, what) and _LEAST <= number.value <= MOST_SAID:
            is_part = said.has("piece part", first, each.start)
            of = "part" if is_part or said.begins("piece after", each.end) else None
            weight = int(what in {"given", "budget", "own", "work"})
            value = number.value * said.times(each.start)
            yield replace(number, value=value, of=of, weight=weight)


def _what(said: Amounts, each: Amount, first: int) -> str | None:
    """Return what an amount is for, by the nearest word before it."""
    if said.ends("gives yes", each.start + 1, first):
        return "given"
    is_so = said.has("that_much yes", each.end, each.end + 14)
    if is_so or said.begins("after for", each.end):
        return "own"
    found = None
    for word in said.apart("whose", order=_WHOSE):
        is_near = word.end == each.start + 1 if "amount" in word.said else word.end <= each.start
        is_bought = word.value == "work" and found == "other"  # `kupione do remontu za 300 tys`
        if is_near and word.start >= first and not is_bought:
            found, first = "other" if word.value == "did" else word.value, word.end
    return found


def _is_budget(said: Amounts, each: Amount, what: str | None) -> bool:
    is_each = said.ends("each yes", each.start + 1) and said.begins("after each", each.end)
    is_else = what == "other" or said.begins("after else", each.end)
    is_price = what is None and said.begins("after much", each.end)
    return not (is_price or is_each or is_else or said.is_rejected(each.start))


def _ends(said: Amounts, at: int) -> bool:
    """Return whether a number stands alone: `budżet 75`, not `budżet na 2 pokoje`."""
    is_end = at == len(said.tokens) or said.is_kind(at, "{alone}")
    return is_end or not said.tokens[at].word.isalnum()


def _is_meant(said: Amounts, each: Amount, what: str | None) -> bool:
    """Return whether a small number without a unit is in thousands."""
    is_budget = said.near("whose budget", each.start)
    is_said = (what == "given" or is_budget) and _ends(said, each.end)
    return is_said or said.begins("after gives", each.end)


def _is_money(said: Amounts, each: Amount, what: str | None, asked: Question | None) -> bool:
    """Return whether a large number without a unit is an amount."""
    is_year = 1900 <= each.value <= 2100
    is_answer = asked == "budget" and each.value % 500 == 0 and _ends(said, each.end)
    is_ours = what in {"given", "budget", "own", "has"} and not is_year
    return is_answer or is_ours
