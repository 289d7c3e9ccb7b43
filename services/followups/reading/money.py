"""Budgets, with their currency: amounts of money, each with what it is for (vocabulary/money.toml)."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from services.followups.reading import amounts
from services.followups.reading.amounts import Amounts, Quantity
from services.followups.reading.numbers import HAS_DIGIT, in_digits
from services.followups.reading.text import MARK, Reading, has_any
from services.followups.reading.tokens import Match
from services.followups.rules.facts import Question

_LEAST = 100
"""Less is the price of a tile."""
MOST_SAID = 100_000_000
"""A larger number is a phone number or a joke."""
_MOST_BARE = 10_000_000
"""A longer number without a currency is a mistyped phone number."""
_IN_WORDS = ("dych", "dysz", "stów", "stow", "mil", "mln", "bań", "ban")
_NEAR = 12
"""In tokens."""
_WHOSE = ("budget", "other", "did", "own", "has", "work")
"""What an amount may be for; of a word that has several, the first counts."""


@dataclass(slots=True)
class _Sum:
    """An amount as it is written: `150-180 tys. zł`."""

    start: int
    at: int
    end: int
    """Tokens: its first one, its number, and the one after it."""
    least: int | None
    """The number that a range begins with."""
    scale: int
    currency: str | None
    own_unit: bool
    """It has a scale or a currency, not only that of an amount near it."""


def find(text: str, _: date, asked: Question | None) -> Reading:
    if not (HAS_DIGIT.search(in_digits(text)) or has_any(text.lower(), _IN_WORDS)):
        return text, {}
    said = amounts.read(text, "money")
    found, news = _in_words(said, asked) or _in_digits(said, asked)
    if not news:
        return text, {}
    start, end = said.tokens[found[0]].start, said.tokens[found[1] - 1].end
    return f"{said.text[:start]} {MARK} {said.text[end:]}", news


_Found = tuple[tuple[int, int], dict[str, Any]]


def _in_words(said: Amounts, asked: Question | None) -> _Found | None:
    """Read `pół miliona` and slang: `dwie dychy` is 20 thousand, `stówka` is 100 thousand."""
    heard = said.of("million")
    for each in heard[:1]:
        start = each.start
        is_after = start and (said.is_number(start - 1) or said.words(start - 1, start) == ["i"])
        if not is_after and not said.begins("million 0", start):
            return (start, each.end), {"budget": int(each.value), "currency": "PLN"}
    if not (asked == "budget" or said.has("slang money", 0, len(said.tokens))):
        return None
    for at, token in enumerate(said.tokens):
        if "{slang}" in token.kinds and not (at and said.tokens[at - 1].word == "za"):
            is_counted = at > 0 and said.is_kind(at - 1, "{amount}") and said.value(at - 1) < 10
            count = said.value(at - 1) if is_counted else 1
            budget = round(count * token.kinds["{slang}"] * 1000)
            return (at - is_counted, at + 1), {"budget": budget, "currency": "PLN"}
    return None


def _sums(said: Amounts) -> list[_Sum]:
    """Return the amounts of a text; of a range, one."""
    found: list[_Sum] = []
    for at in said.numbers:
        ends = [said.end_of(f"sum {name}", at) for name in ("thousand", "million", "currency")]
        end, start = max(*ends, at + 1), at - said.is_kind(at - 1, "{sign}")
        scale = 1_000_000 if ends[1] else 1000 if ends[0] else 1
        unit = said.tokens[end - 1].kinds.get("{currency}") if ends[2] == end else None
        currency = unit or (said.tokens[start].kinds["{sign}"] if start < at else None)
        least = None
        if found and found[-1].least is None and _is_range(said, found[-1], start):
            last = found.pop()
            start, least = last.start, last.at
        is_own = scale > 1 or currency is not None
        found.append(_Sum(start, at, end, least, scale, currency, is_own))
    return found


def _is_range(said: Amounts, last: _Sum, start: int) -> bool:
    is_between = said.is_kind(last.end, "{and}") and said.ends("between range", last.at + 1)
    return start - last.end == 1 and (is_between or said.is_kind(last.end, "{range}"))


def _share(said: Amounts, found: list[_Sum]) -> None:
    """Give an amount the scale of one near it: `kuchnia za 40, łazienka za 30 tys`, `30 tys, a właściwie 35`."""
    for last, each in itertools.pairwise(found):
        small = [one for one in (last, each) if not one.own_unit and said.is_small(one.at)]
        if small == [last] and each.scale == 1000:
            shared = said.spans("shared before", last.at - 2, each.end)
            last.scale = 1000 if shared or said.spans("shared after", last.at, each.end + 1) else 1
        elif small == [each] and last.scale == 1000 and _is_same(said, last.end, each):
            each.scale = 1000


def _is_same(said: Amounts, first: int, each: _Sum) -> bool:
    if said.since(each.at, ".", ";", "!", "?") > first + 3:
        return False
    is_end = said.has("same end", first, each.end) and _ends(said, each.end)
    is_own = said.has("same own", first, each.end + 1)
    return is_end or is_own or said.has("same yes", first, each.end)


def _ends(said: Amounts, at: int) -> bool:
    """Return whether a number stands alone: `budżet 75`, not `budżet na 2 pokoje`."""
    is_end = at == len(said.tokens) or said.is_kind(at, "{alone}")
    return is_end or not said.tokens[at].word.isalnum()


def _in_digits(said: Amounts, asked: Question | None) -> _Found:
    found = _sums(said)
    _share(said, found)
    read = [*_budgets(said, found, asked)]
    sums, values = [each for each, _ in read], [value for _, value in read]
    is_one, least = len(values) == 1, None
    if len(values) == 2 and values[0].value < values[1].value and _rises(said, values):
        total: float | None = values[1].value
        least = values[0].value
    else:
        total = said.total(values)
    if total is None:
        return (0, 0), {}
    if is_one and said.has("twice yes", values[0].end, len(said.tokens)):
        total *= 2  # `dofinansowanie 18 tys, dołożymy drugie tyle`
    currency = next((one.currency for one, each in read if each.value == total), sums[0].currency)
    news: dict[str, Any] = {"budget": round(total), "currency": currency or "PLN"}
    if least := least or (_least(said, sums[0], total) if is_one else None):
        news["budget_from"] = round(least)
    is_each = (
        is_one and said.ends("each yes", values[0].start + 1) and said.times(values[0].start) == 1
    )
    if is_each and said.begins("after each", values[0].end):
        news["is_each"] = True
    return (values[0].start, values[-1].end), news


def _rises(said: Amounts, values: list[Quantity]) -> bool:
    """`25k może 30k`, `9 tysi, max 10`"""
    first, end = values[0].end, values[1].start
    return (first, end) in said.spans("rise yes", first, end)


def _least(said: Amounts, each: _Sum, most: float) -> float | None:
    """Return the lower end of a range: `150-180 tys.`"""
    if each.least is None:
        return None
    least, top = said.value(each.least), said.value(each.at)
    scale = most / top if top else 1
    return least if scale == 1 or least >= 1000 > top else least * scale


def _budgets(
    said: Amounts, found: list[_Sum], asked: Question | None
) -> Iterator[tuple[_Sum, Quantity]]:
    is_answer = asked == "budget" and not all(each.own_unit for each in found)
    beside = said.spans("piece part", 0, len(said.tokens)) if is_answer else []
    beside += [(start - 1, start) for start, _ in beside if said.is_kind(start - 1, "{for}")]
    alone = said.bare(beside) if is_answer else []
    is_bare = bool(alone) and said.is_bare(0, len(said.tokens), beside)
    amended = said.amended() if is_answer else None
    last = 0
    for each in found:
        is_new = amended == each.at
        around = _Around(said, each, last, asked)
        if value := around.value(
            is_alone=is_new or each.at in alone, is_whole=is_new or (is_bare and each.at in alone)
        ):
            yield each, value
        last = each.end if each.own_unit else last


def _is_end(said: Amounts, at: int) -> bool:
    """Return whether a sentence ends here: not in `ok. 50 tys.`"""
    word = said.tokens[at].word
    is_new = word == "." and said.text[said.tokens[at].end :].lstrip()[:1].isupper()
    return is_new or word in {";", "!", "?", "czyli"}


class _Around:
    """The words around an amount."""

    def __init__(self, said: Amounts, each: _Sum, last: int, asked: Question | None) -> None:
        self.said, self.each, self.asked = said, each, asked
        first = max(last, each.start - _NEAR)
        self.first = max(
            first, *(at + 1 for at in said.cuts if at < each.start and _is_end(said, at)), 0
        )
        self.gives = any(
            said.ends("gives yes", at + 1, self.first) for at in (each.at, each.least) if at
        )
        is_for = said.begins("after for", each.end) or said.has(
            "that_much yes", each.end, each.end + 14
        )
        self.what = "own" if self.gives or is_for else self._whose()

    def _whose(self) -> str | None:
        """Classify the amount by the nearest word before it."""
        said, found, last = self.said, None, self.first
        heard = [each for each in said.of("whose") if self._is_before(each)]
        for each in sorted(heard, key=lambda one: (one.start, _WHOSE.index(one.value), -one.end)):
            is_bought = each.value == "work" and found == "other"  # `kupione do remontu za 300 tys`
            if each.start < last or (is_bought and "," not in said.words(last, each.start)):
                continue
            found, last = "other" if each.value == "did" else each.value, each.end
        return found

    def _is_before(self, each: Match) -> bool:
        at = self.each.at
        is_near = each.end == at + 1 if "amount" in each.said else each.end <= at
        return is_near and self.first <= each.start

    def value(self, *, is_alone: bool, is_whole: bool) -> Quantity | None:
        """Return the amount if the context says that it is money and a budget; else None."""
        said, each = self.said, self.each
        is_price = self.what is None and said.begins("after much", each.end)
        is_other = self.what == "other" or said.begins("after else", each.end)
        if is_price or is_other or said.is_rejected(each.start):
            return None
        number = said.value(each.at)
        if each.scale == 1 and each.currency is None:
            if not self._is_money(number, is_alone=is_alone, is_whole=is_whole):
                return None
            number *= 1 if number >= 1000 else 1000  # `250` to "what budget?" means thousands
        number *= each.scale
        if not _LEAST <= number <= MOST_SAID:
            return None
        number *= said.times(each.at if each.least is None else each.least)
        is_part = said.has("piece part", self.first, each.start)
        of = "part" if is_part or said.begins("piece after", each.end) else None
        weight = int(self.what in {"budget", "own", "work"})
        return Quantity(each.start, each.end, number, of, weight=weight)

    def _is_money(self, number: float, *, is_alone: bool, is_whole: bool) -> bool:
        """Return whether a number without a unit is an amount."""
        said, end, is_asked = self.said, self.each.end, self.asked == "budget"
        after = [word for word in said.words(end, end + 4) if word != "-"][:2]
        if [len(word) for word in after if word.isdecimal()] == [2, 2]:
            return False  # a phone number
        if number < 1000:
            is_budget = said.near("whose budget", self.each.start, ",", ";", "!", "?", most=7)
            is_said = (self.gives or is_budget) and _ends(said, end)
            is_most = is_asked and said.begins("after most", end)
            return number >= 5 and (
                is_whole or is_said or is_most or said.begins("after gives", end)
            )
        is_year = 1900 <= number <= 2100
        is_round = (
            is_asked and number % 500 == 0 and _ends(said, end + said.begins("after net", end))
        )
        is_ours = is_round or self.what in {"budget", "own", "has"}  # `zakładamy 95 000 netto`
        return (is_alone or (is_ours and not is_year)) and number < _MOST_BARE
