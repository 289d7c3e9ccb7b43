"""Numbers with their units, and what several of them come to: the base of areas and budgets.

A number is read with its evidence: its unit, the nearest noun before it, and the phrases that begin or
end at it. area.py and money.py say which evidence makes it their fact; how two of them belong together
is the same for both. vocabulary/amounts.toml has the words, and flats_and_rooms.toml the nouns.
"""

import itertools
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from services.followups.reading.numbers import NUMBER, in_digits
from services.followups.reading.text import MARK
from services.followups.reading.tokens import Match, Said, Vocabulary

_TOKEN = re.compile(
    rf"(?P<iso>20\d\d-\d\d?-\d\d?(?!\d))|(?P<amount>{NUMBER})|(?P<side>(?<=\dx)\d\d?(?:[.,]\d\d?)?)|(?P<number>\d+)"
    r"|(?P<word>(?:m|mkw?|ft|м)2(?!\d)|m[./-](?=\w)|[^\W\d_]+)|(?P<sign>[^\w\s])",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(19|20)\d\d")
_FILES = ("amounts", "flats_and_rooms", "money", "corrections")
_NOUNS = ("part", "whole", "other")
AREAS = {"square", "metres", "feet"}
_SCALES = {"feet": 0.09290304}
"""Into square metres; the unit of money is a number."""
_LONGEST_SIDE = 30
NEAR = 9
"""In tokens: how far a word speaks of a number."""
_SIGNS = {",", ";", ".", "!", "?", "(", "|", "-", "–", MARK}
_STOPS = {".", ";", "!", "?", "|", MARK}
_LINKS = ("corrects", "of_it", "or", "less")


@dataclass(frozen=True, slots=True)
class Amount:
    """A number in a message, or a range of two, as it is written: `150-180 tys. zł`."""

    start: int
    end: int
    """Tokens: its first one, and the one after it."""
    value: float
    """With its scale: 180,000."""
    unit: str | None = None
    """Of `AREAS`, `currency`, or how many zł it stands for: `1000`."""
    currency: str | None = None
    least: float | None = None
    """The lower end of a range."""
    of: str | None = None
    """`part` if the name of a part (a room, materials) is next to it, `whole`, or None."""
    noun: str | None = None
    """The noun next to it, the same in all cases: `kuch`."""

    def like(self, other: "Amount") -> "Amount":
        """Return a number, if it has no unit, in that of another; a large one is not scaled."""
        if self.unit:
            return self
        scale = _scale(other.unit) if self.value < 1000 else 1
        currency = self.currency or other.currency
        return replace(self, value=self.value * scale, unit=other.unit, currency=currency)


def _scale(unit: str | None) -> float:
    return float(unit) if unit and unit.isdecimal() else _SCALES.get(unit or "", 1)


class Amounts(Said):
    """A message with its numbers and the nouns that they may count."""

    vocabulary = Vocabulary(*_FILES, pattern=_TOKEN)

    @cached_property
    def numbers(self) -> list[Amount]:
        """Return the numbers with their units; of a range, one."""
        begun = {each.start: each for each in sorted(self.of("unit", "sides"), key=_length)}
        found: list[Amount] = []
        for at, token in enumerate(self.tokens):
            if (found and at < found[-1].end) or not (at in begun or "{amount}" in token.kinds):
                continue
            each = self._number(at, begun.get(at))
            last = found[-1] if found else each
            if self._is_range(last, each):
                if last.unit and each.unit == "currency":  # `tysięcy 30-35 zł`
                    each = replace(each, unit=None)
                each = each.like(last)
                each = replace(each, start=last.start, least=last.like(each).value)
                found.pop()
            elif any(self.has(f"same {name}", last.end, each.end + 1) for name in self._same(last)):
                each = each.like(last)
            found.append(replace(each, value=each.value * self._times(each.start)))
        is_list = False
        for at in range(len(found) - 2, -1, -1):
            each, after = found[at : at + 2]
            link = (each.end, after.start)
            is_list = each.unit in {None, after.unit} and (
                link in self.all("list yes") or (is_list and self.words(*link) == [","])
            )
            if is_list:  # `10, 12 i 8 m2`
                found[at : at + 2] = (replace(one, of="part") for one in (each.like(after), after))
            elif link in self.all("between or"):
                found[at] = each.like(after)
        return found

    def _number(self, at: int, unit: Match | None) -> Amount:
        if unit and unit.name == "sides":  # `4 x 5 m`
            a, b = (unit.said["amount"] + unit.said.get("side", []))[:2]
            ends = (self.end_of(f"unit {name}", unit.end - 1) for name in ("metres", "square"))
            value = a * b if max(a, b) <= _LONGEST_SIDE else 0
            return Amount(at, max(*ends, unit.end), value, "square")
        start, end = at, unit.end if unit else at + 1
        currency = self.tokens[end - 1].kinds.get("{currency}")
        if self.is_kind(at - 1, "{sign}") and not self.is_kind(at - 2, "{amount}"):  # `£20,000`
            start, currency = at - 1, self.tokens[at - 1].kinds["{sign}"]
        name = unit.value if unit else currency and "currency"
        number = next(iter(unit.said.get("amount", ())), 1) if unit else self.value(at)
        return Amount(start, end, number * _scale(name), name, currency)

    def _is_range(self, last: Amount, each: Amount) -> bool:
        """Return whether two numbers are its ends: `między 70 a 75`, `25 tys, może 30`."""
        first, end = last.end, each.start
        if last.unit and each.unit and (last.unit in AREAS) != (each.unit in AREAS):
            return False  # `6 m2 to 32 tys.`
        if (first, end) in self.all("rise yes"):
            return last.unit not in AREAS and bool(last.unit or each.unit in {None, *AREAS})
        is_between = self.has("between range", first - NEAR, first)
        return end - first == 1 and (is_between or self.is_kind(first, "{range}"))

    def _same(self, last: Amount) -> Iterator[str]:
        """Return the phrases after which the next number has the unit of the last one."""
        yield "yes"
        if last.unit not in AREAS:
            yield "money"
        if self.is_theirs(last.start):
            yield "ours"

    @property
    def currency(self) -> str | None:
        """The first that is named."""
        return next((each.currency for each in self.numbers if each.currency), None)

    @cached_property
    def cuts(self) -> list[int]:
        """Return where clauses end."""
        signs = (at for at, each in enumerate(self.tokens) if each.word in _SIGNS)
        return sorted({*filter(self.is_loose, signs), *(at for at, _ in self.all("cut yes"))})

    @cached_property
    def nouns(self) -> list[Match]:
        """Return them; their name is `part`, `whole` or `other`, and their value the noun."""
        return self.apart(*_NOUNS, order=_NOUNS)

    def value(self, at: int) -> float:
        return float(self.tokens[at].kinds["{amount}"])

    def nouns_in(self, first: int, end: int) -> list[Match]:
        return [each for each in self.nouns if first <= each.start and each.end <= end]

    def since(self, at: int, stops: str = "", most: int = NEAR) -> int:
        """Return where the words without numbers and these signs before a token begin."""
        first = max(0, at - most)
        for before in range(at, first, -1):
            word = self.tokens[before - 1].word
            if word in stops or (word[0].isdecimal() and not _YEAR.fullmatch(word)):
                return before
        return first

    def near(self, name: str, at: int) -> bool:
        """Return whether a phrase stands before a token (or ends with it), without a number between."""
        return self.has(name, self.since(at, ",;!?@", most=7), at + 1)

    def is_theirs(self, at: int) -> bool:
        """Return whether a number is of somebody else's works: `sąsiad dał 80 tys. za 52 m`."""
        stops = (one for one in self.cuts if one < at and self.tokens[one].word in _STOPS)
        first = max(stops, default=-1) + 1
        end = max((end for start, end in self.all("of theirs", first) if start < at), default=None)
        return end is not None and not self.has("of ours", end, at)

    def is_rejected(self, at: int) -> bool:
        """Return whether the value that starts here is negated (`nie 60`), or somebody else's."""
        return self.ends("before not", at) or self.is_theirs(at)

    def _times(self, at: int) -> int:
        """Return how many of it there are: 2 before `10` in `dwa pokoje po 10`."""
        within = (each for each in self.of("several") if each.start < at < each.end)
        return next((int(each.said["amount"][0]) for each in within), 1)

    def bare(self, beside: Sequence[tuple[int, int]]) -> tuple[set[int], bool]:
        """Return the numbers of clauses that consist of a number (`jakieś 80, nie 60`), and whether
        all do.

        :param beside: what may be next to them, besides words that say nothing
        """
        said = {at for at, each in enumerate(self.tokens) if each.word[0].isalnum()}
        said -= {at for start, stop in beside for at in range(start, stop)}
        said = {at for at in said if not self.is_kind(at, "{amount}", "{filler}")}
        bare: set[int] = set()
        for start, end in itertools.pairwise([-1, *self.cuts, len(self.tokens)]):
            clause = range(start + 1, end)
            bare.update(clause if said.isdisjoint(clause) else ())
        return bare, not said

    # --- Several ------------------------------------------------------------------------------

    @cached_property
    def amended(self) -> int | None:
        """Return the number of `sory, 4,5 metra`, `jednak będzie 61` or `61 jednak`."""
        said = (each.end - 1 if each.value == "is" else each.start for each in self.of("amended"))
        return min((at for at in said if not self.is_rejected(at)), default=None)

    def link(self, first: int, end: int) -> str | None:
        """Return how what stands between two values joins them, by the first table that has it."""
        return next((name for name in _LINKS if self.has(f"between {name}", first, end + 1)), None)

    def total(self, found: Sequence[Amount]) -> float | None:
        """Return what several values come to; None if a person would ask back."""
        total, last = 0.0, None
        for at, each in enumerate(found):
            link = self.link(last.end, each.start) if last else None
            if each.of != "part" and self.near("between total", each.start):
                return each.value
            if last is None or link == "corrects" or each.start == self.amended:
                total = each.value
            elif last.of == each.of == "part" or (
                last is found[at - 1] and self.has("between joins", last.end, each.start)
            ):
                total += each.value
            elif link != "or" and (link or each.value == total or _is_room_of(each, last)):
                continue  # `mieszkanie 72 m2, salon 30 m2`
            else:
                return None
            last = each
        return total if last else None


def _is_room_of(each: Amount, other: Amount) -> bool:
    """Return whether one is counted in the other: `47 metrów, łazienka 3,5 i kuchnia 7`."""
    if "whole" in {each.of, other.of}:
        return each.of != other.of
    return other.of is None and each.noun is not None and each.value < other.value


def _length(each: Match) -> tuple[int, bool]:
    return each.end, each.value == "metres"


@lru_cache(16)  # an area and a budget are read of the same message
def read(text: str) -> Amounts:
    """Return a text with its numbers in digits, as tokens."""
    return Amounts(in_digits(text))


# --- Of something that was said before: `80, nie 60` ------------------------------------------

_LOOK_BACK = 40


def meant(text: str, found: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the person's own value (`mój`, `nowy`), else the first that is not negated, else the
    last of those that correct one another or form a range.

    :param found: where each begins and ends
    """
    if not found:
        return None
    first = max(0, found[0][0] - _LOOK_BACK)
    said = read(text[first : found[-1][0]])
    starts = [each.start for each in said.tokens]
    spans = {each: [bisect_left(starts, at - first) for at in each] for each in found}
    own = [each for each, (at, _) in spans.items() if said.near("own yes", at)]
    chosen: tuple[int, int] | None = None
    for each in own or found:
        start = spans[each][0]
        is_next = chosen is None or said.link(spans[chosen][1], start) == "corrects"
        if is_next and not said.is_rejected(start):
            chosen = each
    return chosen


def corrects(words: str) -> bool:
    said = read(words)
    return said.link(0, len(said.tokens)) == "corrects"
