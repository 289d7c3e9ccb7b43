"""The kind of each word of a message, as consent_words.toml lists them."""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from operator import ne

from services.followups.reading.phrases import plain
from services.followups.reading.text import told

TABLES: dict[str, Mapping[str, Mapping[str, str]]] = told("consent_words")
PATTERNS: dict[str, list[str]] = TABLES.pop("patterns")  # type: ignore[assignment]
FOREIGN = "."
MISTYPED = range(5, 20)
"""How long a word is that may be mistyped: a shorter one is too near to others."""
_ENTRY = re.compile("[,\n]")


_EDGES = {"start": "^", "end": "$"}


def pattern(phrase: str) -> str:
    """Return a pattern of letters for kinds in their order, as [patterns] explains."""
    found = among = ""
    for part in phrase.split():
        kinds = part.rstrip("*").split("|")
        letters = "".join(kind[0] for kind in kinds if kind not in _EDGES)
        if part.endswith("*"):
            among += letters
            continue
        ways = [f"[{letters}]"] * bool(letters) + [_EDGES[each] for each in kinds if each in _EDGES]
        found += f"[lp{among}]*" * bool(found) + f"(?:{'|'.join(ways)})"
        among = ""
    return found


class Kinds:
    """Words and phrases, each of a kind, which is written as the first letter of its name."""

    def __init__(self, *tables: Mapping[str, str]) -> None:
        """:param tables: the entries of each kind; where two have the same, the later counts"""
        self._phrases: dict[str, str] = {}
        for table in tables:
            for kind, entries in table.items():
                for entry in filter(None, map(str.strip, _ENTRY.split(plain(entries)))):
                    for words in product(*(each.split("|") for each in entry.split())):
                        self._phrases[" ".join(words)] = kind[0]
        self._known = {word for phrase in self._phrases for word in phrase.split()}
        self._longest: dict[str, int] = {}
        for said in (phrase.split() for phrase in self._phrases):
            begun = " ".join(said[:2])
            self._longest[begun] = max(len(said), self._longest.get(begun, 0))
        self._shortened: dict[str, list[str]] = {}
        meant = (word for word in self._known if self._phrases.get(word) != FOREIGN)
        for word in sorted(filter(_may_be_mistyped, meant)):
            for each in shortened(word):
                self._shortened.setdefault(each, []).append(word)
        self._read = lru_cache(4096)(self._word)

    def of(self, words: list[str]) -> str:
        """Return the kind of each word, and one for words that are a phrase together."""
        read = [self._read(word[: MISTYPED.stop]) for word in words]
        words, kinds, at = [word for word, _ in read], "", 0
        while at < len(words):
            size = min(self._longest.get(" ".join(words[at : at + 2]), 1), len(words) - at)
            while size > 1 and " ".join(words[at : at + size]) not in self._phrases:
                size -= 1
            kinds += self._phrases[" ".join(words[at : at + size])] if size > 1 else read[at][1]
            at += size
        return kinds

    def _word(self, typed: str) -> tuple[str, str]:
        """Return the word that was meant, and its kind by itself."""
        if typed not in self._phrases:
            for size in range(len(typed), 1, -1):
                if stem := self._phrases.get(f"{typed[:size]}*"):
                    return typed, stem
        if typed not in self._known and _may_be_mistyped(typed):
            near = (word for each in shortened(typed) for word in self._shortened.get(each, ()))
            typed = next((word for word in near if _is_slip(typed, word)), typed)
        return typed, self._phrases.get(typed, FOREIGN)


def _may_be_mistyped(word: str) -> bool:
    return len(word) in MISTYPED and not word.startswith("nie")


def shortened(word: str) -> list[str]:
    """Return it and what it is without one letter: two words one slip apart share one of these."""
    return [word, *(word[:at] + word[at + 1 :] for at in range(len(word)))]


def _is_slip(typed: str, word: str) -> bool:
    """Whether a letter is misplaced or, within a longer word, missing, too many or another.

    Another ending is another form: `wysyłam` is no `wysyłaj`.
    """
    if sorted(typed) == sorted(word):
        return typed[0] == word[0]
    is_long = min(len(typed), len(word)) > MISTYPED.start
    has_its_ends = typed[0] + typed[-1] == word[0] + word[-1]
    return is_long and has_its_ends and (len(typed) != len(word) or sum(map(ne, typed, word)) == 1)
