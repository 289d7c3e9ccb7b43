"""The phrase language: of routes, kinds and the facts of a message (docs/words.md).

A phrase is words in this order, in any case, with or without Polish diacritics. `zalew*` matches a
beginning, `*liscie` an ending, and `...` up to four words. `{defect}` is any phrase of that list.
vocabulary/*.toml also has `{month}`, a word of that class, signs, `.?`, which may be missing, and `$`,
the end of the message; and `!nie tylko` says that no phrase of the same meaning is where that stands.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any, NamedTuple

GAP = "..."
SIGN = re.compile(r" ([+-]) ")
LONGEST_GAP = 4
STEM, ENDING = 3, 2
"""Minimum lengths of a word's beginning and ending; phrases are indexed by them."""
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
            if token == GAP or _LIST.fullmatch(token):
                continue
            if fold(letters) != ("".join(fold(letters)),) or token not in _ways(letters):
                return f"{phrase!r}: {token!r} is not one word"
            least = ENDING if token.startswith("*") else STEM
            if token != letters and len(letters) < least:
                return f"{phrase!r}: {token!r} needs at least {least} letters besides the *"
    return None


def lists_in(phrase: str) -> set[str]:
    return {match[1] for match in map(_LIST.fullmatch, phrase.split()) if match}


def _ways(letters: str) -> set[str]:
    return {letters, f"{letters}*", f"*{letters}"}


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


Tokens = tuple[str, ...]
Heard = list[tuple[Any, int]]
"""What was added with each phrase, and the number of the word after it."""
_NO_NODES: dict[str, Any] = {}


class Phrases:
    """An index of phrases: the possible next words.

    The cost per word of a message does not depend on the number of phrases: whole words are looked
    up, and beginnings by their first letters.
    """

    __slots__ = ("after_gap", "beginnings", "endings", "ends", "words")

    def __init__(self) -> None:
        # Of 100,000 nodes most end a phrase: nothing is allocated for what may follow.
        self.ends: tuple[Any, ...] = ()
        self.after_gap: Phrases | None = None
        self.words: dict[str, Phrases] = _NO_NODES
        """And classes of words: `{month}`."""
        self.beginnings: dict[str, dict[str, Phrases]] = _NO_NODES
        self.endings: dict[str, dict[str, Phrases]] = _NO_NODES

    def add(self, tokens: Tokens, found: object) -> None:
        node = self
        for token in tokens:
            letters = token.strip("*")
            if token == GAP:
                node.after_gap = node = node.after_gap or Phrases()
                continue
            if token == letters:
                known = node.words = node.words or {}
            elif token[0] == "*":
                node.endings = node.endings or {}
                known = node.endings.setdefault(letters[-ENDING:], {})
            else:
                node.beginnings = node.beginnings or {}
                known = node.beginnings.setdefault(letters[:STEM], {})
            node = known.get(letters) or known.setdefault(letters, Phrases())
        node.ends += (found,)

    def after(self, word: Tokens) -> list["Phrases"]:
        """Return what may follow this word, which is given with its classes."""
        nodes = [self.words[key] for key in word if key in self.words]
        return nodes + self._alike(word[0]) if self.beginnings or self.endings else nodes

    def hear(self, words: Sequence[Tokens], at: int, heard: Heard) -> None:
        """Add what was added with the phrases that continue at this word.

        :param words: each with the classes that it belongs to; the last one is empty
        """
        for found in self.ends:
            heard.append((found, at))
        if self.after_gap:
            for skip in range(min(LONGEST_GAP + 1, len(words) - at)):
                self.after_gap.hear(words, at + skip, heard)
        if self.words or self.beginnings or self.endings:
            for node in self.after(words[at]):
                node.hear(words, at + 1, heard)

    def _alike(self, word: str) -> list["Phrases"]:
        """Return what may follow a word of which a beginning or an ending is in a phrase."""
        nodes: list[Phrases] = []
        if begun := self.beginnings.get(word[:STEM]):
            nodes = [node for letters, node in begun.items() if word.startswith(letters)]
        if ended := self.endings.get(word[-ENDING:]):
            nodes += [node for end, node in ended.items() if word.endswith(end) and word != end]
        return nodes


def spellings(phrase: str, lists: Mapping[str, Sequence[str]]) -> list[Tokens]:
    """Return every phrase that one stands for, with each `{list}` expanded, and without `this?`."""
    found: list[Tokens] = [()]
    for token in phrase.split():
        needed = token.removesuffix("?")
        match = _LIST.fullmatch(needed)
        ways = [tuple(plain(way).split()) for way in lists.get(match[1] if match else "", [needed])]
        ways += [()] if needed != token else []
        found = [before + way for before in found for way in ways]
    return found
