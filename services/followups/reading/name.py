"""Reads the name that people give as their own, and forms the address from it.

A name is a run of words with capitals or known first names. What stands beside it says whether it is the
writer's: a lead (`nazywam się`), a signature, a phone number, or nothing but signs. vocabulary/name.toml has
these words.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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


class _Run(NamedTuple):
    """Words that may be a name, by the numbers of their tokens."""

    start: int
    end: int
    left: str
    """What is before it, and after it."""
    right: str
    cut: tuple[int, int]
    """With the words that say so."""


class _Names(Said):
    vocabulary = Vocabulary("name", pattern=_TOKEN)

    @property
    def size(self) -> int:
        return len(self.tokens)

    def is_title(self, at: int) -> bool:
        return self.text[self.tokens[at].start : self.tokens[at].end].istitle()

    def is_first(self, at: int) -> bool:
        return self.tokens[at].word in FIRST_NAMES

    def _may_be(self, at: int) -> bool:
        return not self.is_kind(at, "{no_name}") and (self.is_title(at) or self.is_first(at))

    def _goes_on(self, at: int) -> bool:
        """Return whether a name goes on with this token: `Maj-Nowak`, `Jan W.`"""
        word = self.tokens[at].word
        is_initial = self.words(at + 1, at + 2) == ["."] and len(word) == 1
        return word == "-" or is_initial or self._may_be(at)

    def runs(self) -> Iterator[_Run]:
        at = 0
        while at < self.size:
            end = at + (self._may_be(at) or self.ends("lead said", at))
            while at < end < min(self.size, at + _LONGEST) and self._goes_on(end):
                end += 1
            if end > at:
                yield self._run(at, end)
            at = max(end, at + 1)

    def _run(self, start: int, end: int) -> _Run:
        left, first = self._left(start)
        is_free = self.is_kind(end, "{word}") and not self.is_kind(end, "{no_name}")
        if is_free and end - start == 1 and self.is_first(start):  # `jan nowak 600 700 800`
            beside = {left, self._edge(end + 1, step=1)}
            is_all = (start, end + 1) == (0, self.size)
            end += is_all or ("word" not in beside and not beside.isdisjoint({"phone", "said"}))
        right, last = self._right(end)
        return _Run(start, end, left, right, (first, last))

    def _left(self, at: int) -> tuple[str, int]:
        at -= self.is_kind(at - 1, "{title}")
        end = at
        while end and self.tokens[end - 1].word in _BESIDE - {MARK, PHONE_MARK}:
            end -= 1
        for lead, stop in (("signed", end), ("said", at), ("introduced", at)):
            if self.ends(f"lead {lead}", stop):
                return lead, self.start_of(f"lead {lead}", stop)
        return self._edge(at - 1, step=-1), at

    def _right(self, at: int) -> tuple[str, int]:
        side = self.end_of("side yes", at)
        return ("side", side) if side else (self._edge(at, step=1), at)

    def _edge(self, at: int, *, step: int) -> str:
        """Return `phone` or `mark`, also beyond signs and labels; else `sign`, `end` or `word`."""
        labels = ("{label}", "{whose}") if step < 0 else ("{label}", "{then}")
        found = "word"
        while 0 <= at < self.size:
            word = self.tokens[at].word
            if word[0] == MARK:
                return "phone" if word == PHONE_MARK else "mark"
            if word not in _BESIDE and not self.is_kind(at, *labels):
                return found
            found = "sign"
            at += step
        return "end"


def find(text: str, *_: object) -> Reading:
    if _KNOWN.isdisjoint(words(text)):
        return text, {}
    names = _Names(text)
    rated = [(rank, run) for run in names.runs() if (rank := _rank(names, run))]
    if not rated:
        return text, {}
    run = min(rated)[1]
    name = names.said(run.start, run.end)
    first, last = name.partition(" ")[::2]
    if plain(last) in FIRST_NAMES and plain(first) not in FIRST_NAMES:  # `Wiśniewska Teresa`
        name = f"{last} {first}"
    return names.without(run.cut), {"name": name.title() if name.islower() else name}


def _rank(names: _Names, run: _Run) -> int:
    """Return how surely a run is the writer's name, 1 the surest; 0 if it is not."""
    beside, size = {run.left, run.right}, run.end - run.start
    if run.left == "said" or not (names.is_first(run.start) or names.is_first(run.end - 1)):
        return int(run.left == "said")
    if run.left == "introduced" or run.right == "side":
        return 2
    if run.left == "signed" or "word" in beside:
        return 3 * (run.left == "signed")
    if all(names.is_title(at) for at in range(run.start, run.end) if names.is_kind(at, "{word}")):
        return 4 if size > 1 or MARK in names.text or names.text[:1].isupper() else 0
    return 5 if (beside == {"end"} and size < 3) or "phone" in beside else 0


# --- the vocative -----------------------------------------------------------------------------

_VOCATIVES = {name: form for form, (name,) in _TOLD["words"]["vocative"].items()}
_ENDINGS: dict[str, list[str]] = _TOLD["words"]["called"]
_SHORT = 6


def addressed(name: str) -> str | None:
    """Return the Polish address in the vocative (`Panie Krzysztofie`); None if uncertain."""
    first = name.split(maxsplit=1)[0].split("-", maxsplit=1)[0]
    if plain(first) not in FIRST_NAMES or not first.isalpha() or not first.istitle():
        return None
    man = not first.endswith("a") or first in {"Kuba", "Barnaba", "Kosma", "Bonawentura"}
    longest = 3 if len(first) < _SHORT else 2
    ends = (first.lower()[-size:] if size else "" for size in range(longest, -1, -1))
    end = next(each for each in ends if each in _ENDINGS)
    form = _VOCATIVES.get(first) or first[: len(first) - len(end)] + _ENDINGS[end][0]
    form = form[0].upper() + form[1:]
    return f"{'Panie' if man else 'Pani'} {form}"
