"""Reads the name that people give as their own, and forms the address from it.

A name is a run of words with capitals or known first names. What stands beside it says whether it is the
writer's: a lead (`nazywam się`), a signature, a phone number, or nothing but signs. vocabulary/name.toml has
these words.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from services.followups.reading.phrases import plain
from services.followups.reading.text import MARK, PHONE_MARK, Reading, told, words
from services.followups.reading.tokens import Said, Vocabulary, words_of

_TOKEN = re.compile(rf"(?P<mark>{MARK}+)|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)|(?P<sign>[^\s])")
_TOLD = told("name")
FIRST_NAMES = frozenset(
    plain(name)
    for line in (Path(__file__).parent / "first_names.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for name in line.split()
)
_KNOWN = FIRST_NAMES | words_of("name", "leads")
_BESIDE = {*",;:.!|()-–/", MARK, PHONE_MARK}
_LONGEST = 4


class _Names(Said):
    vocabulary = Vocabulary("name", pattern=_TOKEN)

    def is_title(self, at: int) -> bool:
        return self.text[self.tokens[at].start : self.tokens[at].end].istitle()

    def is_first(self, at: int) -> bool:
        return self.tokens[at].word in FIRST_NAMES

    def _may_be(self, at: int) -> bool:
        return not self.is_kind(at, "{no_name}") and (self.is_title(at) or self.is_first(at))

    def _goes_on(self, at: int) -> bool:
        """Return whether a name goes on with this token: `Maj-Nowak`, `Jan W.`"""
        word = self.tokens[at].word
        is_initial = len(word) == 1 and word.isalpha() and self.words(at + 1, at + 2) == ["."]
        return word == "-" or is_initial or self._may_be(at)

    def ranked(self) -> Iterator[tuple[int, int, int, tuple[int, int]]]:
        """Return the names that may be the writer's: how surely, 1 the surest, where each begins
        and ends, and where with the words that say so.
        """
        end = 0
        for at in range(len(self.tokens)):
            if at >= end and self._may_be(at):
                end = at + 1
                while end < min(len(self.tokens), at + _LONGEST) and self._goes_on(end):
                    end += 1
                left, first = self._left(at)
                end += self._is_family(end, at, left)
                last = self.end_of("side yes", end)
                right = "side" if last else self._edge(end, step=1)
                if rank := self._rank(at, end, left, right):
                    yield rank, at, end, (first, last or end)

    def _is_family(self, at: int, start: int, left: str) -> bool:
        """Return whether a word without a capital is the family's name: `jan nowak 600 700 800`."""
        beside = {left, self._edge(at + 1, step=1)}
        is_all = (start, at + 1) == (0, len(self.tokens))
        is_free = self.is_kind(at, "{word}") and not self.is_kind(at, "{no_name}")
        return is_free and (is_all or not beside.isdisjoint({"phone", "said"}))

    def _rank(self, start: int, end: int, left: str, right: str) -> int:
        """Return how surely it is the writer's name; 0 if it is not."""
        beside, size = {left, right}, end - start
        if left == "said" or not (self.is_first(start) or self.is_first(end - 1)):
            is_beside = not beside.isdisjoint({"phone", "introduced"}) and "word" not in beside
            is_family = self.is_kind(start, "{surname}") or self.is_kind(start - 1, "{title}")
            return 1 if left == "said" else 6 * (is_beside and size == 1 and is_family)
        if left == "introduced" or right == "side":
            return 2
        if left == "signed" or "word" in beside:
            return 3 * (left == "signed")
        if all(self.is_title(at) for at in range(start, end) if self.is_kind(at, "{word}")):
            return 4 if size > 1 or MARK in self.text or self.text[:1].isupper() else 0
        return 5 if (beside == {"end"} and size < 3) or "phone" in beside else 0

    def _left(self, at: int) -> tuple[str, int]:
        at -= self.is_kind(at - 1, "{title}")
        end = at
        while end and self.tokens[end - 1].word in _BESIDE - {MARK, PHONE_MARK}:
            end -= 1
        for lead, stop in (("signed", end), ("said", at), ("introduced", at)):
            if self.ends(f"lead {lead}", stop):
                return lead, self.start_of(f"lead {lead}", stop)
        return self._edge(at - 1, step=-1), at

    def _edge(self, at: int, *, step: int) -> str:
        """Return `phone` or `mark`, also beyond signs and labels; else `sign`, `end` or `word`."""
        labels = ("{label}", "{whose}") if step < 0 else ("{label}", "{then}")
        found = "word"
        while 0 <= at < len(self.tokens):
            word = self.tokens[at].word
            if word[0] == MARK:
                return "phone" if word == PHONE_MARK else "mark"
            if word not in _BESIDE and not self.is_kind(at, *labels):
                return found
            found = "sign"
            at += step
        return "end"


def find(text: str, *_: object) -> Reading:
    if PHONE_MARK not in text and _KNOWN.isdisjoint(words(text)):
        return text, {}
    names = _Names(text)
    best = min(names.ranked(), default=None)
    if best is None:
        return text, {}
    start, end, cut = best[1:]
    name = names.said(start, end)
    first, last = name.partition(" ")[::2]
    if plain(last) in FIRST_NAMES and plain(first) not in FIRST_NAMES:  # `Wiśniewska Teresa`
        name = f"{last} {first}"
    return names.without(cut), {"name": name.title() if name.islower() else name}


# --- the vocative -----------------------------------------------------------------------------


_VOCATIVES = {name: form for form, (name,) in _TOLD["words"]["vocative"].items()}
_ENDINGS: dict[str, list[str]] = _TOLD["words"]["called"]
_SHORT = 6


def addressed(name: str) -> str | None:
    """Return the Polish address in the vocative (`Panie Krzysztofie`); None if uncertain."""
    first = name.split(maxsplit=1)[0].split("-", maxsplit=1)[0]
    is_known = plain(first) in FIRST_NAMES and plain(first).isascii() and first.istitle()
    if not is_known or (first[-1] in "eiouy" and first not in _VOCATIVES):
        return None
    man = not first.endswith("a") or first in {"Kuba", "Barnaba", "Kosma", "Bonawentura"}
    longest = 3 if len(first) < _SHORT else 2
    ends = (first.lower()[-size:] if size else "" for size in range(longest, -1, -1))
    end = next(each for each in ends if each in _ENDINGS)
    form = _VOCATIVES.get(first) or first[: len(first) - len(end)] + _ENDINGS[end][0]
    form = form[0].upper() + form[1:]
    return f"{'Panie' if man else 'Pani'} {form}"
