"""Reads the name that people give as their own, and forms the address from it.

A name is a run of words with capitals or known first names. What stands beside it says whether it is the
writer's: a lead (`nazywam się`), a signature, a phone number, or nothing but signs. vocabulary/name.toml has
these words.
"""

import re
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from services.followups.reading.text import MARK, PHONE_MARK, Reading, fold, words
from services.followups.reading.tokens import Said, Vocabulary, told
from services.followups.rules.facts import Question

_TOKEN = re.compile(rf"(?P<mark>{MARK}+)|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)|(?P<sign>[^\s])")
_WORDS = Vocabulary("name", pattern=_TOKEN)
FIRST_NAMES = frozenset(
    fold(name)
    for line in (Path(__file__).parent / "first_names.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for name in line.split()
)
_FAMILY = re.compile(r"(?!\w*polska)\w{3,21}(?:[sc]k[ia]|dzk[ia]|wicz|czyk|[ic]zak|iak)")
"""`Tu Kowalczyk`"""
_FAMILIES = ("ska", "ski", "cka", "cki", "dzka", "dzki", "wicz", "czyk", "zak")
_NOUN = re.compile(r"\w{2,16}(?:[eaiyu]k|ec|[oa]rz)")
_NO_SIGNATURE = re.compile(r"^sam\b|\s\S*(?:ę|ł[ae]m?|my|e|y|(?<![scdz]k)i)$", re.IGNORECASE)
"""`sam zrobię`, `ola dzwoniła`"""
_LEADS = frozenset(
    max(phrase.split(), key=len)
    for lead in ("said", "signed", "surname")
    for phrase in told("name")["lead"][lead]
)
_SIGNS = set(",;:.!-–")
_BESIDE = {*",;:.!|()-–/", MARK, PHONE_MARK}
_ENDS = {".", "!", MARK, PHONE_MARK}
_LONGEST = 6


class _Run(NamedTuple):
    """Words that may be a name, by the numbers of their tokens."""

    start: int
    end: int
    left: str
    """What is before it, and after it."""
    right: str
    cut: tuple[int, int]
    """With the words that say so."""
    is_known: bool
    """Its first or last word is a first name."""
    is_title: bool


class _Names(Said):
    def __init__(self, text: str) -> None:
        super().__init__(_WORDS, text, "name")
        self.size = len(self.tokens)

    def is_word(self, at: int) -> bool:
        return 0 <= at < self.size and self.tokens[at].word[0].isalpha()

    def is_title(self, at: int) -> bool:
        return self.is_word(at) and self.text[self.tokens[at].start : self.tokens[at].end].istitle()

    def is_first(self, at: int) -> bool:
        return self.is_word(at) and self.tokens[at].word in FIRST_NAMES

    def is_family(self, at: int, *, noun: bool = False) -> bool:
        """Return whether it ends as names of families do; some also as a `noun`: `Rożek`."""
        word = self.tokens[at].word
        is_noun = noun and _NOUN.fullmatch(word) and not self.is_kind(at, "{place}")
        return self.is_word(at) and bool(_FAMILY.fullmatch(word) or is_noun)

    def _may_be(self, at: int) -> bool:
        if not self.is_word(at) or self.is_kind(at, "{no_name}") or len(self.tokens[at].word) < 2:
            return False
        return self.is_title(at) or self.is_first(at) or self.is_family(at)

    def _goes_on(self, at: int) -> bool:
        """Return whether a name goes on with this token: `Maj-Nowak`, `Ewa i Tomasz Kruk`, `Jan W.`"""
        word = self.tokens[at].word
        is_joint = (word == "-" and not (self.is_loose(at) or self.is_loose(at - 1))) or (
            word == "i" and self.is_first(at - 1) and self.is_first(at + 1)
        )
        is_initial = len(word) == 1 and self.is_title(at) and self.words(at + 1, at + 2) == ["."]
        return is_joint or is_initial or self._may_be(at)

    def runs(self) -> Iterator[_Run]:
        at = 0
        while at < self.size:
            end = at + (self._may_be(at) or (self.is_word(at) and self.ends("lead said", at)))
            while at < end < min(self.size, at + _LONGEST) and self._goes_on(end):
                end += 1
            if end > at:
                yield self._run(at, end)
            at = max(end, at + 1)

    def _run(self, start: int, end: int) -> _Run:
        left, first = self._left(start)
        firsts = [at for at in range(start, end) if self.is_first(at)]
        if firsts and start + 1 < firsts[0] < end - 1:  # `Beauty Studio Ewelina Pająk`
            start = first = firsts[0]
            left = "sign"
        is_short = end - start == 1 or "i" in self.words(start, end)
        is_free = self.is_word(end) and not self.is_kind(end, "{no_name}")
        if is_short and is_free and self.is_first(end - 1):  # `jan nowak 600 700 800`
            beside = {left, self._edge(end + 1, step=1)}
            is_all = (start, end + 1) == (0, self.size) or beside == {"end", "mark"}
            end += is_all or ("word" not in beside and not beside.isdisjoint({"phone", "said"}))
        return self.run(start, end, left, first)

    def run(self, start: int, end: int, left: str, first: int) -> _Run:
        words = [at for at in range(start, end) if self.is_word(at)]
        is_known = self.is_first(words[0]) or self.is_first(words[-1])
        is_title = all(self.is_title(at) or self.tokens[at].word == "i" for at in words)
        right, last = self._right(end)
        return _Run(start, end, left, right, (first, last), is_known, is_title)

    def _left(self, at: int) -> tuple[str, int]:
        at -= self.is_kind(at - 1, "{title}")
        end = at
        while end and self.tokens[end - 1].word in _SIGNS:
            end -= 1
        led = at - (self.words(at - 1, at) == [":"])
        for lead, stop in (("signed", end), ("said", led), ("introduced", led)):
            if self.ends(f"lead {lead}", stop):
                return lead, self.start_of(f"lead {lead}", stop)
        return self._edge(at - 1, step=-1), at

    def _right(self, at: int) -> tuple[str, int]:
        ends = _ENDS if self.begins("side mowi", at) else _BESIDE
        side = max(self.end_of("side yes", at), self.end_of("side mowi", at))
        if side and (side == self.size or self.tokens[side].word in ends):
            return "side", side
        if self.words(at, at + 1) in (["z"], ["ze"]) and self.is_title(at + 1):
            return self._edge(at + 2, step=1), at  # `Marta z Lublina`
        last = at + (self.words(at, at + 1) == ["."] and len(self.tokens[at - 1].word) == 1)
        return "sign" if self.is_kind(at, "{role}") else self._edge(at, step=1), last

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


def find(text: str, _: date, asked: Question | None) -> Reading:
    said = words(text)
    is_family = any(word.endswith(_FAMILIES) for word in said)
    if not is_family and FIRST_NAMES.isdisjoint(said) and _LEADS.isdisjoint(said):
        return text, {}
    names = _Names(text)
    last = _surname(names)
    runs = [each for each in _joined(names, [*names.runs()]) if each.start != last]
    rated = [(rank, each) for each in runs if (rank := _rank(names, each, asked))]
    cuts, name = list[tuple[int, int]](), ""
    if rated:
        run = min(rated)[1]
        cuts, name = [run.cut], _written(names, run)
    if last is not None:
        cuts.append((names.start_of("lead surname", last), last + 1))
        name = name if " " in name else f"{name} {names.said(last, last + 1)}".strip()
    for first, stop in sorted(cuts, reverse=True):
        before, after = names.tokens[first].start, names.tokens[stop - 1].end
        text = f"{text[:before]} {MARK} {text[after:]}"
    return text, {"name": name} if name else {}


def _surname(names: _Names) -> int | None:
    """Return the token of `nazwisko Kot, imię Wanda`."""
    for _, end in names.all("lead surname"):
        at = end + (names.words(end, end + 1) in ([":"], [","]))
        if names.is_title(at) and not names.is_first(at) and not names.is_kind(at, "{no_name}"):
            return at
    return None


def _joined(names: _Names, runs: list[_Run]) -> list[_Run]:
    """Join `Rożek, Waldemar` and `Oliwia, Oliwia Sadowska`."""
    for number, (one, two) in enumerate(pairwise(runs)):
        if names.words(one.end, two.start) == [","] and names.is_first(two.start):
            is_twice = names.words(one.start, one.end) == names.words(two.start, two.start + 1)
            is_family = one.left == "said" or names.is_family(one.start, noun=True)
            if is_twice or (is_family and not one.is_known and two.end - two.start == 1):
                start = two.start if is_twice else one.start
                runs[number + 1] = names.run(start, two.end, one.left, one.cut[0])
                runs[number] = runs[number + 1]
    return runs


def _rank(names: _Names, run: _Run, asked: Question | None) -> int:
    """Return how surely a run is the writer's name, 1 the surest; 0 if it is not."""
    first, beside = run.start, {run.left, run.right}
    is_of_another = any(
        names.ends("of another", at, max(0, first - _LONGEST)) for at in (first, first - 1)
    )
    is_limit = names.tokens[first].word in {"max", "maks"} and not (
        run.is_title and "phone" in beside
    )
    if (is_of_another and PHONE_MARK not in names.text) or (is_limit and run.left != "said"):
        return 0
    is_alone = "phone" in beside and run.end - first == 1
    by_family = names.is_family(run.end - 1) and (run.left == "introduced" or is_alone)
    if run.left == "said" or not (run.is_known or by_family):
        return int(run.left == "said")
    is_signed = run.left == "signed" and run.right in {"end", "phone", "sign"}
    if run.left == "introduced" or run.right == "side" or is_signed:
        return 2 + (run.right == "side") + 2 * is_signed
    return 0 if "word" in beside else _standing(names, run, asked)


def _standing(names: _Names, run: _Run, asked: Question | None) -> int:
    """Rank a name without a word that says so."""
    text, beside, size = names.text, {run.left, run.right}, run.end - run.start
    is_due = asked in {"name", "contact"} or text[:1].isupper()
    if run.is_title:
        return 5 if is_due or MARK in text or size > 1 else 0
    may_sign = asked in {"consent", None} and not _NO_SIGNATURE.search(text)
    is_alone = beside == {"end"} and (is_due or may_sign)
    is_last = run.left == "end" and asked == "contact" and size > 1
    is_amid = (run.left, run.right) == ("mark", "end")
    return 6 if is_alone or is_last or is_amid or "phone" in beside else 0


def _written(names: _Names, run: _Run) -> str:
    """Put the first name first: `Wiśniewska Teresa`."""
    name = names.said(run.start, run.end).replace(",", "")
    first, _, last = name.partition(" ")
    if last.startswith("i ") and last.count(" ") == 1:  # `Monika i Paweł`
        return first
    if fold(last) in FIRST_NAMES and fold(first) not in FIRST_NAMES:
        name = f"{last} {first}"
    return name.title().replace(" I ", " i ") if name.islower() else name


# --- the vocative -----------------------------------------------------------------------------

_VOCATIVES = {name: form for form, (name,) in told("name")["words"]["vocative"].items()}
_SOFT = ("sia", "zia", "cia", "nia", "dzia", "ola", "ela", "ula", "ala", "jka")


def addressed(name: str) -> str | None:
    """Return the Polish address in the vocative (`Panie Krzysztofie`); None if uncertain."""
    first = name.split(maxsplit=1)[0].split("-", maxsplit=1)[0]
    if fold(first) not in FIRST_NAMES or not first.isalpha() or not first.istitle():
        return None
    man = not first.endswith("a") or first in {"Kuba", "Barnaba", "Kosma", "Bonawentura"}
    form = _VOCATIVES.get(first) or _vocative(first)
    return f"{'Panie' if man else 'Pani'} {form}" if form else None


def _vocative(first: str) -> str | None:
    if first.lower().endswith(_SOFT) and len(first) < 6:
        return f"{first[:-1]}u"
    if first.endswith("a"):
        return f"{first[:-1]}o"
    if first.endswith("ek"):
        return f"{first[:-2]}ku"
    if first.endswith(("sz", "cz", "rz", "ch", "j", "l", "k", "g")):
        return f"{first}u"
    if first[-1] in "ńt":
        return first[:-1] + ("niu" if first[-1] == "ń" else "cie")
    return first[:-1] + {"ł": "le", "r": "rze", "d": "dzie"}.get(first[-1], f"{first[-1]}ie")
