"""Numbers with their units, and what several of them come to: the base of areas and budgets.

vocabulary/amounts.toml has the words, and area.toml the nouns that a number may count.
"""

import itertools
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from services.followups.reading.numbers import NUMBER, in_digits
from services.followups.reading.text import MARK
from services.followups.reading.tokens import Match, Said, Token, Vocabulary

_TOKEN = re.compile(
    rf"(?P<iso>20\d\d-\d\d?-\d\d?(?!\d))|(?P<amount>{NUMBER})|(?P<side>(?<=\dx)\d\d?(?:[.,]\d\d?)?)|(?P<number>\d+)"
    r"|(?P<word>(?:m|mkw?|ft|м)2(?!\d)|m[./-](?=\w)|[^\W\d_]+)|(?P<sign>[^\w\s])",
    re.IGNORECASE,
)
WORDS = Vocabulary("area", "money", "corrections", shared="amounts", pattern=_TOKEN)
_NOUNS = ("part", "whole", "height", "other")
MONEY = ("{thousand}", "{million}", "{currency}")
_SQUARE_FOOT = 0.09290304
_FLAT = 20
"""An area of this or more, before that of a room, is that of the whole: `95 m², salon 30 m`."""
NEAR, LONGEST_LINK, MOST_BETWEEN = 9, 12, 40
"""In tokens: how far a word speaks of a number, and what is between two that belong together."""
_SIGNS = {",", ";", ".", "!", "?", "(", "|", "-", "–"}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in a message that may be the fact."""

    start: int
    end: int
    """Numbers of tokens."""
    value: float
    of: str | None = None
    """`part` if the name of a part (a room, materials) is next to it, `whole`, or None."""
    weight: int = 0
    """A clearer context wins: `na remont` against an amount without any word."""
    noun: str | None = None
    """The noun next to it, the same in all cases: `kuch`."""
    listed: bool = False
    """It shares the unit of a later one: `37, 42 i 51 m2`."""


class Amounts(Said):
    """A message with its numbers and the nouns that they may count."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__(WORDS, text, file, tokens=_tokens(text))
        self.numbers = [at for at, each in enumerate(self.tokens) if "{amount}" in each.kinds]

    @cached_property
    def cuts(self) -> list[int]:
        """Return where clauses end."""
        return [at for at in range(len(self.tokens)) if self._is_cut(at)]

    def _is_cut(self, at: int) -> bool:
        word = self.tokens[at].word
        if word not in _SIGNS:
            return word == MARK or self.begins("cut yes", at)
        is_glued = word in {"-", "–"} and (at == 0 or not self.is_loose(at - 1))
        return self.is_loose(at) and not is_glued

    @cached_property
    def nouns(self) -> list[Match]:
        """Return them; their name is `part`, `whole`, `height` or `other`, and their value the noun."""
        found: list[Match] = []
        heard = self.of(*_NOUNS)
        for each in sorted(heard, key=lambda one: (one.start, _NOUNS.index(one.name), -one.end)):
            if not found or each.start >= found[-1].end:
                found.append(each)
        return found

    def value(self, at: int) -> float:
        return float(self.tokens[at].kinds["{amount}"])

    def is_small(self, at: int) -> bool:
        word = self.tokens[at].word
        return word.isdecimal() and len(word) < 4

    def at(self, offset: int) -> int:
        """Return the first token from here on."""
        return bisect_left(self.tokens, offset, key=lambda each: each.start)

    def is_number(self, at: int) -> bool:
        return self.tokens[at].word[0].isdecimal()

    def nouns_in(self, first: int, end: int) -> list[Match]:
        return [each for each in self.nouns if first <= each.start and each.end <= end]

    def before(self, at: int, kind: str = "{about}") -> int:
        """Return where the words of this kind before a token begin."""
        while at and self.is_kind(at - 1, kind):
            at -= 1
        return at

    def since(self, at: int, *stops: str, most: int = NEAR) -> int:
        """Return where the words without numbers and these signs before a token begin."""
        first = max(0, at - most)
        for each in range(at - 1, first - 1, -1):
            if self.tokens[each].word in stops or (
                self.is_number(each)
                and not "".join(self.words(each + 1, each + 2)).startswith("pok")
            ):
                return each + 1
        return first

    def noun_before(self, at: int) -> tuple[str | None, str | None]:
        """Classify the nearest noun before a number: in its clause, or the whole in one before."""
        first = self.since(at)
        clause = max(first, *(each + 1 for each in self.cuts if each < at), 0)
        if nouns := self.nouns_in(clause, at):
            return nouns[-1].name, nouns[-1].value
        nouns = self.nouns_in(self.since(at, ";", ".", "!", "?"), at)
        return ("whole" if any(each.value in _FLATS for each in nouns) else None), None

    def unit(self, at: int) -> tuple[int, float, bool] | None:
        """Return where the unit of a number ends, its metres, and whether it may be a length."""
        if self.begins("unit address", at) and not self.begins("unit some", at):
            return None
        plain, feet = self.end_of("unit plain", at), self.end_of("unit feet", at)
        end = max(plain, feet, self.end_of("unit metres", at))
        is_one = end and not self.begins("unit none", at)
        return (end, _SQUARE_FOOT if end == feet else 1, end == plain) if is_one else None

    def is_rejected(self, at: int) -> bool:
        """Return whether the value that starts here is negated: `nie 60`."""
        is_old = self.ends("before was", at) and not self.is_said("after not")
        return is_old or self.ends("before not", at)

    def times(self, at: int) -> int:
        """Return how many of it there are: 2 before `10` in `dwa pokoje po 10`."""
        counts = [each.said["amount"][0] for each in self.of("several") if each.end == at + 1]
        return next((int(each) for each in counts if 1 < each < 50), 1)

    def bare(self, beside: Sequence[tuple[int, int]]) -> list[int]:
        """Return the numbers of clauses that consist of a number: `jakieś 80, nie 60`."""
        found: list[int] = []
        cuts = [at for at in self.cuts if self.tokens[at].word != "a"]
        for start, end in itertools.pairwise([-1, *cuts, len(self.tokens)]):
            if self.is_bare(start + 1, end, beside):
                found += [at for at in self.numbers if start < at < end]
        return found

    def is_bare(self, first: int, end: int, beside: Sequence[tuple[int, int]]) -> bool:
        """Return whether this consists of numbers, and of words that may be next to them."""
        among = {at for start, stop in beside for at in range(start, stop)}
        return all(
            at in among
            or not word[0].isalnum()
            or self.is_kind(at, "{filler}")
            or self._is_alone(at)
            for at, word in enumerate(self.words(first, end), first)
        )

    def _is_alone(self, at: int) -> bool:
        """Return whether it is a number like `250 000`, but `697.512.68` and `80m` are not."""
        word = self.tokens[at].word
        is_apart = self.is_loose(at) or not self.tokens[at + 1].word[0].isalnum()
        return is_apart and self.is_kind(at, "{amount}") and (len(word) < 7 or word[-3].isalnum())

    # --- Several ------------------------------------------------------------------------------

    def amended(self) -> int | None:
        """Return the number of `sory, 4,5 metra`, `jednak będzie 61` or `61 jednak`."""
        ends = ((each, self.ends("amended is", each + 1)) for each in self.numbers)
        return next((at for at, is_new in ends if is_new or self.begins("amended after", at)), None)

    def near(self, name: str, at: int, *stops: str, first: int = 0, most: int = NEAR) -> bool:
        """Return whether a phrase stands before, without a number or one of these signs between."""
        return self.has(name, max(first, self.since(at, *stops, most=most)), at)

    def corrects(self, first: int, end: int, most: int = NEAR) -> bool:
        is_limit = self.near("between limits", end, ",", ";", first=first)
        return end - first <= most and (is_limit or self.has("between corrects", first, end))

    def replaces(self, first: int, end: int) -> bool:
        words = self.words(first, end)
        is_measured = end - first <= LONGEST_LINK and self.has("between measured", first, end)
        is_range = len(words) == 1 and self.is_kind(first, "{range}")
        return self.corrects(first, end) or is_measured or is_range or words == [",", "no"]

    def _is_instead(self, last: Quantity, each: Quantity) -> bool:
        """Return whether a value replaces the last one: a correction, or a range: `między 70 a 75`."""
        span = last.end, each.start
        if each.weight > last.weight or (each.noun == "gor" and last.of == "part"):  # not `at most`
            return each.weight > last.weight
        is_and = span[1] - span[0] == 1 and self.is_kind(span[0], "{and}")
        is_range = is_and and self.ends("between range", last.start + 1)
        is_limit = each.value > last.value and self.has("between up_to", last.end, each.start + 1)
        return is_range or is_limit or self.replaces(*span)

    def of_it(self, first: int, end: int) -> bool:
        words = self.words(first, end)
        return words[:1] == ["("] or words == ["z"] or self.has("between of_it", first, end)

    def _is_sum(self, last: Quantity, each: Quantity) -> bool:
        first, end = last.end, each.start
        if _are_rooms(last, each) or (self.has("between added", first, end) and each.of != "whole"):
            return True
        if last.listed or self._is_joined(first, end):
            return last.of == each.of or None in {last.of, each.of}
        words = self.words(first, end)
        is_listed = all(word.isalpha() or word in {":", ".", ","} for word in words)
        return (
            last.of == each.of == "part" and is_listed and len(words) < NEAR > words.count(",") * 5
        )

    def _is_joined(self, first: int, end: int) -> bool:
        """`12 m salon i jakieś 9`: words only, and one of them joins."""
        while first < end and self.tokens[first].word in {".", ","}:
            first += 1
        joints = self.spans("between joins", first, end)
        is_plain = all(word.isalpha() or word in {"+", "."} for word in self.words(first, end))
        return bool(joints) and is_plain and joints[0][0] - first <= 3 and end - joints[-1][0] <= 6

    def total(self, found: Sequence[Quantity]) -> float | None:
        """Return what several values come to; None if a person would ask back."""
        is_joint = self.is_said("between adds") and not self.is_said("between adds_to")
        own = [each for each in found if is_joint or not self._is_of_another(each)]
        total, last = 0.0, None
        for each in own or (() if self.is_said("of not_theirs") else found):
            first = max(last.end, each.start - MOST_BETWEEN) if last else 0
            is_of_parts = each.of == "part" and last is not None and last.of == "whole"
            is_total = self.near("between total", each.start, ",", ";", first=first, most=7)
            if is_total and not is_of_parts:
                return each.value
            if last is None or self._is_instead(last, each):
                total = each.value
            elif self._is_of_it(last, each, total, first):
                continue
            elif self._is_sum(last, each):
                total += each.value
            elif _is_part_of(last, each, total):
                continue
            elif {each.of, last.of} == {None, "whole"}:
                total = each.value if each.of else total
            else:
                return None
            last = each
        return total if last else None

    def _is_of_another(self, each: Quantity) -> bool:
        """Return whether it is said of another person: `szwagier ma 80 m`."""
        return self.near("of kin", each.start, ",", ";", ".", most=6)

    def _is_of_it(self, last: Quantity, each: Quantity, total: float, first: int) -> bool:
        is_same = each.value == total and not _are_rooms(last, each)
        return is_same or self.of_it(first, each.start) or self.has("between or", first, each.start)


_FLATS = {"mies", "dom", "loka", "biur", "kawa"}


def _is_part_of(last: Quantity, each: Quantity, total: float) -> bool:
    """`mieszkanie 72 m2, salon 30 m2`"""
    is_less = last.of is None and each.of == "part" and each.value < total >= _FLAT
    return is_less or each.weight < last.weight or {each.of, last.of} == {"part", "whole"}


def _are_rooms(last: Quantity, each: Quantity) -> bool:
    """Return whether they are two rooms."""
    nouns = {last.noun, each.noun}
    return last.of == each.of == "part" and len(nouns) > 1 and None not in nouns


@lru_cache(16)  # an area and a budget are read of the same message
def _tokens(text: str) -> list[Token]:
    return WORDS.tokens(text)


def flats(text: str) -> int:
    """Return how many flats or rooms a text speaks of: 2 of `mam dwa mieszkania`."""
    heard = read(text, "corrections").of("several")
    counts = [each.said["amount"][0] for each in heard if each.value == "flats"]
    return next((int(each) for each in counts if 1 < each < 5), 1)


@lru_cache(16)
def read(text: str, file: str) -> Amounts:
    """Return a text with its numbers in digits, as tokens, with the phrases of a file of words."""
    return Amounts(in_digits(text), file)
