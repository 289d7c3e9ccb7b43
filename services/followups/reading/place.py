"""Reads the town of the works, from a list of Polish towns. vocabulary/place.toml has the words beside one."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

from services.followups.reading.name import FIRST_NAMES
from services.followups.reading.phrases import plain
from services.followups.reading.text import MARK, told, words
from services.followups.reading.tokens import Said, Vocabulary

_TOKEN = re.compile(rf"(?P<mark>{MARK}+)|(?P<word>[^\W\d_]+)|(?P<amount>\d+)|(?P<sign>[^\w\s])")
_CLASSES = told("place")["words"]
_OTHERS = {
    form: town
    for kind in ("abroad", "districts")
    for town, forms in _CLASSES[kind].items()
    for form in forms
}
_ENDINGS: dict[str, list[str]] = _CLASSES["declined"]
_LOOK_BACK = 6
"""In tokens."""
_LOWER_CASE = 6
"""How long a small town's form must be to count in lower case."""
_INSTEAD, _IN, _FROM, _NEAR, _HOME, _ANOTHERS, _AMID = range(-1, 6)
"""How surely the works are in a town, the least the surest; one that stands alone is as sure as `z`."""
_BESIDE = {"anothers": _ANOTHERS, "not_ours": None, "home": _HOME, "instead": _INSTEAD}


@cache
def _towns() -> tuple[dict[str, str], frozenset[str], frozenset[str]]:
    """Return a map from every form of a name to its town, the largest towns, and those with an ordinary
    word among their forms.
    """
    text = (Path(__file__).parent / "towns.txt").read_text(encoding="utf-8")
    listed = [line for line in text.splitlines() if not line.startswith("#")]
    forms = dict(_OTHERS)
    towns = [line.rstrip("*") for line in listed if line]
    for town in towns:
        for form in map(" ".join, product(*map(_cases, _listed(town).split()))):
            forms.setdefault(form, town)
    for town in towns:
        name, *others = _listed(town).split()
        is_called = len(others) == 1 and (town.endswith("ki") or "-" in town)
        for form in _cases(name) if is_called else ():  # `w Gorzowie`, `w Bielsku`
            forms.setdefault(form, town)
    large = frozenset(listed[: listed.index("")])
    return forms, large, frozenset(line[:-1] for line in listed if line.endswith("*"))


@cache
def _first_words() -> frozenset[str]:
    return frozenset(form.split()[0] for form in _towns()[0])


def _listed(town: str) -> str:
    return plain(town).replace("-", " ")


@cache
def _cases(word: str) -> tuple[str, ...]:
    """Return a word in all cases, and some that do not exist."""
    ends = (word[at:] for at in range(max(0, len(word) - 3), len(word) + 1))
    end = next(each for each in ends if each in _ENDINGS)
    is_long = len(word) > 5  # `Katowic`, but `tych` is not a town
    return (word, *(word.removesuffix(end) + each for each in _ENDINGS[end] if each or is_long))


class _Places(Said):
    vocabulary = Vocabulary("place", pattern=_TOKEN)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.forms, self.large, self.ordinary = _towns()

    def ranked(self) -> Iterator[tuple[int, str]]:
        """Return the towns that are named, each with how surely the works are there."""
        done = 0
        for at, each in enumerate(self.tokens):
            is_apart = self.is_kind(at, "{no_town}") or self.is_kind(at - 1, "{outside}")
            is_first = each.word in _first_words() and not is_apart
            if at >= done and is_first and (name := self._name(at)):
                rank = self._rank(at, *name)
                if rank is not None:
                    done = name[0]
                    yield rank, name[1]

    def _name(self, at: int) -> tuple[int, str] | None:
        """Return the town that begins here, with its end: the longest name."""
        for end in range(min(at + 5, len(self.tokens)), at, -1):
            said = " ".join(word for word in self.words(at, end) if word != "-")
            town = self.forms.get(said)
            is_small = len(said) >= _LOWER_CASE and town not in self.ordinary
            if town and (self.is_title(at) or " " in said or town in self.large or is_small):
                return end, town
        return None

    def _rank(self, at: int, end: int, town: str) -> int | None:
        """Return how surely the works are in a town; None if they are not."""
        kinds = ("{in}", "{from}", "{near}")
        led = next((rank for rank, kind in enumerate(kinds) if self.is_kind(at - 1, kind)), None)
        if led is None:
            return None if self.ends("beside not_ours", at) else self._standing(at, end, town)
        if self.begins("beside elsewhere", end):
            return _ANOTHERS
        if any(self.begins("beside there", one) for one in range(at, at + _LOOK_BACK)):
            return led
        said = (one for one in _BESIDE for end in (at - 1, at) if self.ends(f"beside {one}", end))
        return _BESIDE.get(next(said, ""), led)

    def _standing(self, at: int, end: int, town: str) -> int | None:
        """Rank a town without a preposition: `adres: Kraków`."""
        is_form = self.tokens[at].word not in _listed(town).split()  # `Brzozowa 3`
        is_after_name = not FIRST_NAMES.isdisjoint(self.words(at - 1, at))  # `Anna Jasło`
        is_name = is_form or is_after_name or self.ends("beside named", at)
        if is_name and town not in self.large:
            return None
        first = at
        while self.is_kind(first - 1, "{label}"):
            first -= 1
        is_last = not self.is_kind(end, "{word}") or self.is_kind(end, "{near}", "{short}")
        if is_last and not self.is_kind(first - 1, "{word}"):
            return _FROM
        is_known = town in self.large or (self.is_title(at) and town not in self.ordinary)
        return _AMID if is_known else None


def find_all(text: str) -> list[str]:
    """Return the towns that a message names as clearly as any other.

    A small one-word town needs a capital: `kole`, `pile` and `górze` are also ordinary words.
    """
    if _first_words().isdisjoint(words(text)):
        return []
    ranked = [*_Places(text).ranked()]
    best = min((rank for rank, _ in ranked), default=None)
    return list(dict.fromkeys(town for rank, town in ranked if rank == best))
