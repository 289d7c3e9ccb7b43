"""The phrase language: of routes, kinds and the facts of a message (docs/words.md).

A phrase is words in this order, in any case, with or without Polish diacritics. `zalew*` matches a
beginning, `*liscie` an ending, and `...` up to four words. `{defect}` is any phrase of that list.
`$` is the end of the message. vocabulary/*.toml also has `{month}`, a word of that class, signs and
`.?`, which may be missing; and `!nie tylko` says that no phrase of the same meaning is where that stands.
"""

import re
import unicodedata
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import NamedTuple

GAP = "..."
SIGN = re.compile(r" ([+-]) ")
LONGEST_GAP = 4
STEM, ENDING = 3, 2
"""How long the beginning and the ending of a word are at least, besides the star."""
_WORD = re.compile(r"[^\W_]+")
_COMBINING = re.compile("[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u20d0-\u20ff]")
_LIST = re.compile(r"\{([a-z_]+)\}")


@lru_cache(64)  # a turn folds the same message several times
def fold(text: str) -> tuple[str, ...]:
    """Return the words of a text in lower case, without diacritics."""
    return tuple(_WORD.findall(plain(text)))


@lru_cache(256)  # several readers fold the same message
def plain(text: str) -> str:
    """Return lower case without diacritics, which people omit on a phone."""
    lower = text.lower()
    if lower.isascii():
        return lower
    return _COMBINING.sub("", unicodedata.normalize("NFKD", lower.replace("ł", "l")))


def phrase_fault(phrase: str) -> str | None:
    """Return why a configured phrase is invalid; None if it is valid."""
    for part in SIGN.split(phrase)[::2]:
        tokens = part.split()
        if not tokens or tokens[0] == GAP or tokens[-1] == GAP:
            return f"{phrase!r} must begin and end with a word"
        for token in tokens:
            letters = token.strip("*")
            if token in {GAP, "$"} or _LIST.fullmatch(token):
                continue
            if fold(letters) != ("".join(fold(letters)),) or token not in {
                letters,
                f"{letters}*",
                f"*{letters}",
            }:
                return f"{phrase!r}: {token!r} is not one word"
            least = ENDING if token.startswith("*") else STEM
            if token != letters and len(letters) < least:
                return f"{phrase!r}: {token!r} needs at least {least} letters besides the *"
    return None


def lists_in(phrase: str) -> set[str]:
    return {match[1] for match in map(_LIST.fullmatch, phrase.split()) if match}


class Rule(NamedTuple):
    """`a + b - c`: the phrases, or their names, that a message must have, and must not have."""

    needs: frozenset[str]
    bars: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Rule":
        first, *rest = SIGN.split(text)
        signed = [*zip(rest[::2], rest[1::2], strict=True)]
        needs, bars = ([part for each, part in signed if each == sign] for sign in "+-")
        return cls(frozenset([first, *needs]), frozenset(bars))

    def holds(self, said: AbstractSet[str]) -> bool:
        return self.needs <= said and self.bars.isdisjoint(said)


def spellings(phrase: str) -> set[tuple[str, ...]]:
    """Return the elements of every phrase that one stands for: with and without `this?`."""
    found: set[tuple[str, ...]] = {()}
    for each in plain(phrase).split():
        needed = each.removesuffix("?")
        ways = {(needed,), ()} if needed != each else {(needed,)}
        found = {before + way for before in found for way in ways}
    # `{month} ,?` ends with the month
    return {each for each in found if each[-1] not in ",." or phrase[-1] != "?"}
