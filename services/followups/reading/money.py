"""Budgets, with their currency: amounts of money, each with what it is for (vocabulary/money.toml)."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

from services.followups.reading import amounts
from services.followups.reading.amounts import AREAS, Amount, Amounts
from services.followups.reading.numbers import in_digits
from services.followups.reading.text import MARK, Reading
from services.followups.rules.facts import Facts, Question

_LEAST = 100
"""Less is the price of a tile."""
MOST_SAID = 100_000_000
"""A larger number is a phone number or a joke."""
_YEARS, _MOST_BARE = range(1900, 2100), 10_000_000
"""A number without a currency may be a year; a long one is a mistyped phone number."""
_HAS_AMOUNT = re.compile("[0-9]|dych|dysz|st[óo]w|mil|mln|ba[ńn]", re.IGNORECASE)
_NEAR = 12
"""In tokens."""
_WHOSE = ("budget", "other", "did", "own", "has", "work")
"""What an amount may be for; of a word that has several, the first counts."""
_SURE = {"given", "budget", "own"}


def find(text: str, _: date, asked: Question | None) -> Reading:
    if not _HAS_AMOUNT.search(in_digits(text)):
        return text, {}
    said = amounts.read(text)
    rated = [*_budgets(said, asked)]
    found = [each for _, each in rated]
    is_or = said.is_said("between or")
    if said.total(found) is None and not is_or:  # `kosztowało 480 tys., na remont mam 90 tys.`
        found = [each for what, each in rated if what in _SURE]
    total = said.total(found)
    if total is None:
        both = ((round(each.value), each.currency or said.currency or "PLN") for _, each in rated)
        either = [Facts(budget=budget, currency=currency) for budget, currency in both]
        return text, {"either": either} if len(either) == 2 else {}
    first, last = found[0], found[-1]
    meant = next((each.currency for each in found if each.value == total), None)
    news: dict[str, Any] = {"budget": round(total), "currency": meant or first.currency or "PLN"}
    if first is last and first.least:
        news["budget_from"] = round(first.least)
    return said.without((first.start, last.end)), news


def _budgets(said: Amounts, asked: Question | None) -> Iterator[tuple[str | None, Amount]]:
    meant = {"given", "own", "has"} if asked == "budget" else {"given"}
    bare, is_whole = said.bare(said.all("piece part")) if asked == "budget" else ([], False)
    last, amended = 0, said.amended if asked == "budget" else None
    theirs = [each for each in said.numbers if said.is_theirs(each.start)]
    for each in said.numbers:
        if each.unit in AREAS or said.is_theirs(each.start):
            continue
        # `kupione, 54 m2 za 720 tys.`, but `wynajmowałem, 54 m2, 30 tys.`
        stops = ";!?" if said.begins("price for", each.start - 1) else f";!?{MARK}"
        first = max(last, said.since(each.start, stops, _NEAR))
        what = _what(said, each, first)
        number = each
        if each.unit is not None:
            last = each.end
        elif each.value < 1000:
            is_last = each.end in {len(said.tokens), *said.cuts}  # `budżet 75`
            is_meant = is_last and (what in meant or said.near("whose budget", each.start))
            is_least = each.value < 10 or said.begins("after more", each.end)
            is_own = bool(theirs) and each.start in bare  # `siostra dała 40 tys, u nas 65`
            if is_least or not (is_whole or is_meant or is_own or each.start == amended):
                continue
            number = replace(each, value=each.value * 1000, least=each.least and each.least * 1000)
        elif (
            each.value in _YEARS
            or each.value >= _MOST_BARE
            or not (each.start in bare or what in {"given", "budget", "own", "has"})
        ):
            continue
        is_price = what is None and said.text[said.tokens[each.end - 1].end :].lstrip()[:1] == "?"
        if is_price and said.has("asked price", 0, each.start):
            continue  # `czyli 6 m2 to 32 tys.?`
        is_else = what in {"other", "did"} or said.begins("after else", each.end)
        if is_else or said.is_rejected(each.start) or not _LEAST <= number.value <= MOST_SAID:
            continue
        of = "part" if said.has("piece part", first, each.start) else None
        yield what, replace(number, of=of)


def _what(said: Amounts, each: Amount, first: int) -> str | None:
    """Return what an amount is for, by the nearest word before it."""
    if said.ends("gives yes", each.start + 1, first):
        return "given"
    words = [one for one in said.apart("whose", order=_WHOSE) if first <= one.start]
    near = next((one for one in reversed(words) if one.end <= each.start + 1), None)
    is_quoted = near and near.value == "other" and near.end == each.start  # `quoted 70k for it`
    if said.begins("after for", each.end) and not is_quoted:
        return "own"
    return near and near.value
