"""Folds a message into tokens, and finds the phrases of a vocabulary in them (phrases.py).

vocabulary/*.toml has the words of each class, and by what they mean the phrases.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from services.followups.reading.phrases import STEM, Heard, Phrases, Tokens, plain, spellings

_FOLDER = Path(__file__).parent / "vocabulary"
_TOKEN = re.compile(
    r"(?P<iso>\b20\d\d-\d\d?(?:-\d\d?)?\b)"
    r"|(?<![\d.])(?P<dotted>\d\d?[./]\d\d?[./](?:20)?\d\d\b)"
    r"|(?<![\d./])(?P<of_year>\d\d?[./]20\d\d\b)"
    r"|(?<![\d.,/])(?P<day_month>\d\d?[./]\d\d?(?!\d|[.,/]\d))"
    r"|(?P<number>\d+)|(?P<word>[^\W\d_]+)|(?P<sign>[^\w\s])"
)
_DIGITS = re.compile(r"\d+")


class Token(NamedTuple):
    start: int
    end: int
    word: str
    """Folded."""
    kinds: Mapping[str, Any]
    """What it may be, by class: `{"{month}": 3}`."""
    keys: Tokens
    """The word, and the classes."""


class Match(NamedTuple):
    """A phrase in a text."""

    name: str
    value: str
    start: int
    end: int
    """Numbers of tokens."""
    said: Mapping[str, list[Any]]
    """The values of its classes: `{"day": [10, 15], "month": [3]}`."""


class Vocabulary:
    """The classes of words of files, and of each file the phrases by name and value."""

    def __init__(self, *files: str) -> None:
        self._words: dict[str, dict[str, Any]] = defaultdict(dict)
        self._stems: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        self._unlike: set[str] = set()
        self._phrases = {file: self._read_file(file) for file in files}
        self._read = lru_cache(2_000)(self._look_up)

    def _read_file(self, name: str) -> Phrases:
        told = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
        self._unlike.update(told.pop("unlike", ()))
        lists = told.pop("lists", {})
        for kind, values in told.pop("words").items():
            for value, forms in values.items():
                for form in map(plain, forms):
                    stem = form.rstrip("*")
                    words = self._words if stem == form else self._stems[stem[:STEM]]
                    words[stem][f"{{{kind}}}"] = int(value) if value.isdecimal() else value
        index = Phrases()
        for rule, values in told.items():
            for value, phrases in values.items():
                for tokens in {each for phrase in phrases for each in spellings(phrase, lists)}:
                    if tokens[-1] not in {",", "."}:
                        index.add(tokens, (rule, value, tokens))
        return index

    def _look_up(self, said: str, group: str) -> tuple[str, Mapping[str, Any], Tokens]:
        word = plain(said)
        kinds: dict[str, Any] = {"{word}": word} if group == "word" else {}
        if said.lower() not in self._unlike:
            for stem, each in self._stems.get(word[:STEM], {}).items():
                kinds |= each if word.startswith(stem) else {}
            kinds |= self._words.get(word, {})
        if group not in {"word", "sign"}:
            kinds |= _numeric(group, word)
        return word, kinds, (word, *kinds)

    def tokens(self, text: str) -> list[Token]:
        return [
            Token(*match.span(), word, kinds, keys)
            for match in _TOKEN.finditer(text)
            for word, kinds, keys in (self._read(match[0], match.lastgroup),)
        ]

    def find(self, file: str, tokens: list[Token]) -> list[Match]:
        """Return the file's phrases in the tokens, in the order of their first one."""
        words = [*(each.keys for each in tokens), ("",)]
        found: list[Match] = []
        for start in range(len(tokens)):
            heard: Heard = []
            self._phrases[file].hear(words, start, heard)
            for (rule, value, phrase), end in heard:
                found.append(Match(rule, value, start, end, _said(phrase, tokens[start:end])))
        return found


def _said(phrase: Tokens, tokens: list[Token]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for element, token in zip(phrase, tokens, strict=False):
        if element in token.kinds:
            found.setdefault(element[1:-1], []).append(token.kinds[element])
    return found


def _numeric(kind: str, text: str) -> dict[str, Any]:
    """Return what a number may be: a count, a day, a year, or a date as its parts."""
    parts = [int(each[:9]) for each in _DIGITS.findall(text)]
    if kind != "number":
        return {f"{{{kind}}}": parts}
    number = parts[0]
    found: dict[str, Any] = {"{number}": number, "{count}": number} if number < 100 else {}
    if 0 < number <= 31:
        found["{day}"] = number
    if 2000 <= number < 2100:
        found["{year}"] = number
    return found
