"""Reads the town of the works, from a list of Polish towns. vocabulary/place.toml has the words beside one."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

from services.followups.reading import corrections
from services.followups.reading.name import FIRST_NAMES
from services.followups.reading.text import MARK, fold, words
from services.followups.reading.tokens import Said, Vocabulary, told

_TOKEN = re.compile(rf"(?P<mark>{MARK}+)|(?P<word>[^\W\d_]+)|(?P<amount>\d+)|(?P<sign>[^\w\s])")
_WORDS = Vocabulary("place", pattern=_TOKEN)
_CLASSES = told("place")["words"]
_ABROAD = {form: town for town, forms in _CLASSES["abroad"].items() for form in forms}
_SHORT = {word: short for short, long in _CLASSES["short"].items() for word in long}
_ENDINGS: dict[str, list[str]] = _CLASSES["ending"]
_IRREGULAR = {"bialystok": ("bialymstoku", "bialegostoku", "bialymstokiem")}
_CONSONANT = {"k": ("ce",), "g": ("dze",), "r": ("rze",), "t": ("cie",), "d": ("dzie",)}
_LOCATIVE = (("cach", "ce"), ("kach", "ki"), ("sku", "sko"), ("ewie", "ewo"), ("awie", "awa"))
_LOOK_BACK = 6
"""In tokens."""
_LOWER_CASE = 6
"""How long a small town's form must be to count in lower case."""
_IN, _FROM, _NEAR, _HOME, _ANOTHERS = range(5)
"""How surely the works are in a town, the least the surest; one that stands alone is as sure as `z`."""


@cache
def _towns() -> tuple[dict[str, str], frozenset[str], frozenset[str]]:
    """Return a map from every form of a name to its town, the largest towns, and those with an ordinary
    word among their forms.
    """
    text = (Path(__file__).parent / "towns.txt").read_text(encoding="utf-8")
    listed = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    large, small = (part.replace("*", "").split("\n") for part in listed.strip().split("\n\n"))
    ordinary = frozenset(line[:-1] for line in listed.split("\n") if line.endswith("*"))
    forms = dict(_ABROAD)
    for town in (*large, *small):
        for form in _forms(town):
            forms.setdefault(form, town)
    for town in (*large, *small):  # the larger one first
        for form in _partly(town):
            forms.setdefault(form, town)
    return forms, frozenset(large), ordinary


def _partly(town: str) -> Iterator[str]:
    """Yield `w Ostrowie Wlkp.`, `w Gorzowie`, `w Bielsku`, `w Nowym Dworze`."""
    word, *others = fold(town).replace("-", " ").split()
    if len(others) == 1:
        called = {word, *_inflected(word, among=1)}
        if others[0] in _SHORT:
            yield from (f"{each} {_SHORT[others[0]]}" for each in called)
        if town.endswith("ki") or "-" in town:
            yield from called
    elif others:
        yield from _forms(f"{word} {others[0]}")


@cache
def _first_words() -> frozenset[str]:
    return frozenset(form.split()[0] for form in _towns()[0])


def _forms(town: str) -> Iterator[str]:
    words = fold(town).replace("-", " ").split()
    yield " ".join(words)
    if len(words) < 3:
        inflected = (_inflected(word, among=len(words)) for word in words)
        yield from (" ".join(each) for each in product(*inflected))


def _inflected(word: str, *, among: int) -> tuple[str, ...]:
    """Return the forms of a name after a preposition, and some that do not exist."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    last, stem = word[-1], word[:-1]
    changes = _CONSONANT.get(stem[-1:] if last in _ENDINGS else last, ())
    if last not in _ENDINGS:
        base = {"iec": word[:-3] + "c", "ec": word[:-2] + "c", "ek": word[:-2] + "k"}
        fleeting = next((base[end] for end in base if word.endswith(end)), None)
        ends = ("u", "a", "em" if word.endswith("ec") else "iem")
        changed = (stem if last in "td" else word[:-1], *changes)
        return (
            *(word + end for end in _ENDINGS["consonant"]),
            *(fleeting + end for end in ends if fleeting),
            *(changed[0] + end for end in changes if last in "tdr"),
        )
    is_short = stem[-1] == "i" or (last in "iye" and len(stem) > 4 and among == 1)
    is_like = among == 1 and word.endswith(("owa", "na"))
    adjective = _ENDINGS["adjective"] if among > 1 else ["ej"] * is_like
    return (
        *(stem + end for end in (*_ENDINGS[last], *adjective)),
        *(stem[:-1] + end for end in changes),
        *([stem] * is_short),
    )


class _Named(NamedTuple):
    """A town in a message."""

    rank: int
    start: int
    end: int
    town: str


class _Places(Said):
    def __init__(self, text: str) -> None:
        super().__init__(_WORDS, text, "place")
        self.size = len(self.tokens)
        self.forms, self.large, self.ordinary = _towns()

    def is_word(self, at: int) -> bool:
        return 0 <= at < self.size and self.tokens[at].word[0].isalpha()

    def is_title(self, at: int) -> bool:
        return self.is_word(at) and self.text[self.tokens[at].start].isupper()

    def name(self, at: int) -> Iterator[tuple[int, str]]:
        """Yield the towns that may begin here, with their end: the longest name first."""
        two = self._two(at)
        for end in (self._two(two - 1) if two else 0, two, at + 1):
            said = " ".join(each.word for each in self.tokens[at:end] if each.word != "-")
            town = self.forms.get(said) if end else None
            is_name = self.is_title(at) or " " in said or self._is_plain(said)
            if town and is_name:
                yield end, town

    def _two(self, at: int) -> int:
        after = at + 1 + (self.words(at + 1, at + 2) == ["-"])
        return after + 1 if self.is_word(after) and not self.is_kind(after, "{in}", "{near}") else 0

    def _is_plain(self, said: str) -> bool:
        """Return whether a word is a town even in lower case."""
        town = self.forms.get(said)
        is_small = len(said) >= _LOWER_CASE and town not in self.ordinary
        return town is not None and (town in self.large or is_small)

    def named(self) -> Iterator[_Named]:
        for at in range(self.size):
            if not self.is_word(at) or self.tokens[at].word not in _first_words():
                continue
            rank = self._led(at)
            if rank is not None:
                yield from self._chain(at, rank)
            elif self._is_alone_before(at):
                yield from self._alone(at)

    def _chain(self, at: int, rank: int) -> Iterator[_Named]:
        """Yield the town and those that are listed with it: `w Katowicach albo Tychach`."""
        while name := next(self.name(at), None):
            end, town = name
            yield _Named(_ANOTHERS if self.begins("beside elsewhere", end) else rank, at, end, town)
            at = end
            while self.is_kind(at, "{or}"):
                at += 1
            if at == end:
                return
            at += self.is_kind(at, "{in}")

    def _led(self, at: int) -> int | None:
        """Return how sure a town is after a preposition; None if there is none."""
        before = at - 1 - (self.words(at - 1, at) in ([":"], ["."]))
        is_in = self.is_kind(before, "{in}") or self.ends("led yes", at)
        if not (is_in or self.is_kind(before, "{from}", "{near}")):
            return None
        first = max(0, before - _LOOK_BACK)
        is_there = any(
            self.begins("beside there", one) for one in range(at, min(at + 6, self.size))
        )
        is_anothers = self.ends("beside anothers", before, first)
        not_ours = any(
            self.ends("beside not_ours", one, first) for one in range(before - 2, before + 1)
        )
        if self.tokens[at].word == "klucz":  # `pod klucz`
            return None
        is_rejected = corrections.is_rejected(self.text, self.tokens[before].start)  # `nie w Łodzi`
        if is_rejected or (not_ours and not (is_anothers or is_there)):
            return None
        if not is_there and (is_anothers or self.ends("beside home", before, first)):
            return _ANOTHERS if is_anothers else _HOME
        return _NEAR if self.is_kind(before, "{near}") else int(self.is_kind(before, "{from}"))

    def _is_alone_before(self, at: int) -> bool:
        while self.is_kind(at - 1, "{label}"):
            at -= 1
        return at == 0 or not self.is_word(at - 1)

    def _alone(self, at: int) -> Iterator[_Named]:
        two = self._two(at)
        for end, town in self.name(at):
            said = " ".join(self.words(at, end)).replace(" - ", " ")
            # `Warszawa Wola` is a district.
            is_part = end == at + 1 and two and town not in self.large
            is_end = self._is_end(end)
            is_end = is_end or (end == at + 1 and bool(two) and not is_part and self._is_end(two))
            if is_end and (said in _ABROAD or _is_called(town, said)):
                yield _Named(_FROM, at, end, town)
                return

    def _is_end(self, at: int) -> bool:
        return at == self.size or not self.is_word(at) or self.is_kind(at, "{near}")


def _is_called(town: str, said: str) -> bool:
    """Return whether it is the name as it is listed, or the first word of `Konstantynów Łódzki`."""
    listed = fold(town).replace("-", " ")
    first, _, last = listed.partition(" ")
    is_first = said == first and (listed.endswith("ki") or "-" in town)
    return said == listed or is_first or said == f"{first} {_SHORT.get(last)}"


def find(text: str) -> str | None:
    """Return the town that a message names; None if it names several."""
    towns = find_all(text)
    return towns[0] if len(towns) == 1 else None


def find_all(text: str) -> list[str]:
    """Return the towns that a message names as clearly as any other.

    A small one-word town needs a capital: `kole`, `pile` and `górze` are also ordinary words.
    """
    if _first_words().isdisjoint(words(text)):
        return []
    places = _Places(text)
    named = [*places.named()]
    if not named:
        return _amid(places)
    best = min(each.rank for each in named)
    first, *others = sorted(
        {each for each in named if each.rank == best}, key=lambda each: each.start
    )
    if best == _NEAR and (own := _own(places, first)):
        return [f"{own} ({first.town})"]
    towns = [first.town]
    for before, after in pairwise((first, *others)):
        between = text[places.tokens[before.end - 1].end : places.tokens[after.start].start]
        if corrections.corrects(between):
            towns.clear()  # `w Krakowie, a nie, w Skawinie`
        towns.append(after.town)
    if exact := _exactly(places, first):
        return [exact]
    return list(dict.fromkeys(towns))


def _village(places: _Places, at: int) -> int:
    """Return where a name that begins here ends: a capital, and four letters or more."""
    end = at
    while end < at + 2 and places.is_title(end) and len(places.tokens[end].word) > 3:
        end += 1
    return end if end > at and places.tokens[at].word not in FIRST_NAMES else 0


def _own(places: _Places, near: _Named) -> str | None:
    """Return the village near a town: `Pod Krakowem, Zabierzów`, `w Kobierzycach pod Wrocławiem`."""
    at = near.end
    while places.words(at, at + 1) in ([","], ["("], ["w"]):
        at += 1
    end = _village(places, at) if at > near.end else 0
    if end and (not places.is_word(end) or places.is_kind(end, "{and_so_on}")):
        return _nominative(places, at, end)
    led = near.start - 1
    for size in (2, 1):
        start = led - size
        is_name = start >= 0 and _village(places, start) == led
        is_only = start == 0 and near.end >= places.size - 1 and not places.is_kind(0, "{dwelling}")
        if is_name or (is_only and all(len(word) > 3 for word in places.words(0, led))):
            return _nominative(places, start, led)
    return None


def _nominative(places: _Places, start: int, end: int) -> str:
    word = places.said(start, end).title().removeprefix("Wieś ")
    if not places.is_kind(start - 1, "{in}"):
        return word
    return next((word[: -len(old)] + new for old, new in _LOCATIVE if word.endswith(old)), word)


def _exactly(places: _Places, named: _Named) -> str | None:
    """Return the place that is named more exactly: `Żywiec, a konkretnie Milówka`, but no district."""
    at = named.end + (places.words(named.end, named.end + 1) == [","])
    at = places.end_of("beside exactly", at)
    end = _village(places, at) if at and not places.is_kind(at, "{street}") else 0
    if not end or places.is_word(end):
        return None
    said, first = places.said(at, end), places.tokens[at].word
    if fold(said) in _districts() or first.endswith(("ska", "cka", "dzka")):
        return None
    return places.forms.get(fold(said)) or f"{said} ({named.town})"


def _amid(places: _Places) -> list[str]:
    """Find a town without a preposition: a large one anywhere, a small one as it is listed."""
    found: list[str] = []
    is_all = sum(each.word[0].isalnum() for each in places.tokens) == 1
    for at in range(places.size):
        beside = places.is_title(at - 1) or places.is_title(at + 1)
        is_apart = at > 0 and places.is_title(at) and not beside
        for _, town in places.name(at):
            said = places.tokens[at].word
            is_listed = town not in places.ordinary and said == fold(town) and len(said) > 4
            if is_listed and (is_all or is_apart):
                return [town]
            if fold(town).replace("-", " ").startswith(said) and town in places.large:
                found.append(town)
    return list(dict.fromkeys(found))


# --- Districts ---------------------------------------------------------------------------------


@cache
def _districts() -> dict[str, tuple[str, str, bool]]:
    """Return a map from every form of a name to it, its city, and whether it needs a capital."""
    text = (Path(__file__).parent / "districts.txt").read_text(encoding="utf-8")
    lines = (line.split(": ") for line in text.splitlines() if not line.startswith("#"))
    listed = ((name, city) for city, names in lines for name in names.split(", "))
    return {
        form: (name.rstrip("*"), city, name.endswith("*"))
        for name, city in listed
        for form in _forms(name.rstrip("*"))
    }


@cache
def _beginnings() -> frozenset[str]:
    return frozenset(form.split()[0] for form in _districts())


_NAME = re.compile(r"[^\W\d_]+")


def district(text: str) -> tuple[str, str] | None:
    """Return a district that a message names, and the city that it probably is in."""
    if _beginnings().isdisjoint(words(text)):
        return None
    names = _NAME.findall(text)
    pairs = (f"{one} {two}" for one, two in pairwise(names))
    for name in (*pairs, *names):
        found = _districts().get(fold(name))
        is_led = f" na {name}" in text and name[-1] in "eiuh"  # `na Woli`, but `na piątkową`
        if found and (name[0].isupper() or not found[2] or is_led):
            return found[:2]
    return None


_STREET = re.compile(
    r"\b(?:(?:ul\.?|ulicy|os\.?|osiedlu|al\.?)\s+[A-ZĆŁŃÓŚŹŻ]"
    r"|(?:na|przy)\s+[A-ZĆŁŃÓŚŹŻ]\w*(?:ej|ego|ich|ów|icza)\b)"
)


def names_street(text: str) -> bool:
    """Return whether it names a street: `na Lipskiej`, `ul. Lipska`."""
    return _STREET.search(text) is not None
