"""Folds a message into tokens, and finds the phrases of a vocabulary in them (phrases.py).

vocabulary/*.toml has the words of each class, and by what they mean the phrases.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from services.followups.reading import numbers
from services.followups.reading.phrases import STEM, Heard, Phrases, Tokens, plain, spellings

_FOLDER = Path(__file__).parent / "vocabulary"
_TOKEN = re.compile(
    r"(?P<iso>\b20\d\d-\d\d?(?:-\d\d?)?\b)"
    r"|(?<![\d.])(?P<dotted>\d\d?[./]\d\d?[./](?:20)?\d\d\b)"
    r"|(?<![\d./])(?P<of_year>\d\d?[./]20\d\d\b)"
    r"|(?<![\d.,/])(?P<day_month>\d\d?[./]\d\d?(?!\d|[.,/]\d))"
    r"|(?P<number>\d+)|(?P<word>[^\W\d_]+)|(?P<sign>[^\w\s])"
)
_NOTHING: Mapping[str, list[Any]] = {}
_DIGITS = re.compile(r"\d+")


def told(file: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{file}.toml").read_text(encoding="utf-8"))


def words_of(file: str, kind: str) -> frozenset[str]:
    """Return the words of a class, for a reader that has no phrases."""
    return frozenset(told(file)["words"][kind]["yes"])


class Token(NamedTuple):
    start: int
    end: int
    word: str
    """Folded."""
    kinds: Mapping[str, Any]
    """What it may be, by class: `{"{month}": 3}`."""
    keys: Tokens
    """The word, and the classes."""
    begins: Collection[str]
    """The files in which a phrase may begin with it: most words begin none."""


class Match(NamedTuple):
    """A phrase in a text."""

    name: str
    value: str
    key: str
    """Both."""
    start: int
    end: int
    """Numbers of tokens."""
    said: Mapping[str, list[Any]]
    """The values of its classes: `{"day": [10, 15], "month": [3]}`."""


class Vocabulary:
    """The classes of words of files, and of each file the phrases by name and value.

    The phrases of the shared file are found with those of each other.
    """

    def __init__(
        self, *files: str, shared: str | None = None, pattern: re.Pattern[str] = _TOKEN
    ) -> None:
        self._pattern = pattern
        self._words: dict[str, dict[str, Any]] = defaultdict(dict)
        self._stems: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        self._unlike: set[str] = set()
        self._phrases = {file: Phrases() for file in files}
        for file, index in self._phrases.items():
            self._read_file(file, [index])
        if shared:
            self._read_file(shared, self._phrases.values())
        self._read = lru_cache(2_000)(self._look_up)

    def _read_file(self, name: str, indexes: Collection[Phrases]) -> None:
        tables = told(name)
        self._unlike.update(tables.pop("unlike", ()))
        lists = tables.pop("lists", {})
        for kind, values in tables.pop("words").items():
            for value, forms in values.items():
                for form in map(plain, forms):
                    stem = form.rstrip("*")
                    words = self._words if stem == form else self._stems[stem[:STEM]]
                    words[stem][f"{{{kind}}}"] = int(value) if value.isdecimal() else value
        for rule, values in tables.items():
            for value, phrases in values.items():
                for phrase in phrases:
                    for tokens in {*spellings(phrase.removeprefix("!"), lists)}:
                        if tokens[-1] in {",", "."} and phrase.endswith("?"):
                            continue  # `{month} ,?` ends with the month
                        has_classes = any(token[0] == "{" for token in tokens)
                        names = rule, value, f"{rule} {value}"
                        meaning = *names, tokens if has_classes else (), phrase[0] == "!"
                        for index in indexes:
                            index.add(tokens, meaning)

    def _look_up(
        self, said: str, group: str
    ) -> tuple[str, Mapping[str, Any], Tokens, Collection[str]]:
        word = plain(said)
        kinds: dict[str, Any] = {"{word}": word} if group == "word" else {}
        if said.lower() not in self._unlike:
            for stem, each in self._stems.get(word[:STEM], {}).items():
                kinds |= each if word.startswith(stem) else {}
            kinds |= self._words.get(word, {})
        if group not in {"word", "sign"}:
            kinds |= _numeric(group, word)
        keys = word, *kinds
        begins = {file for file, index in self._phrases.items() if index.may_begin(keys)}
        return word, kinds, keys, begins

    def tokens(self, text: str) -> list[Token]:
        read = self._read
        return [
            Token._make((*match.span(), *read(match[0], match.lastgroup)))
            for match in self._pattern.finditer(text)
        ]

    def find(self, file: str, tokens: list[Token]) -> list[Match]:
        """Return the file's phrases in the tokens, in the order of their first one."""
        starts = [at for at, each in enumerate(tokens) if file in each.begins]
        if not starts:
            return []
        words = [*(each.keys for each in tokens), ("",)]
        found: list[Match] = []
        denied: set[tuple[str, int]] = set()
        index = self._phrases[file]
        for start in starts:
            heard: Heard = []
            index.hear(words, start, heard)
            for (rule, value, key, phrase, is_not), end in heard:
                if is_not:
                    denied.update((key, at) for at in range(start, end))
                else:
                    said = _said(phrase, tokens[start:end]) if phrase else _NOTHING
                    found.append(Match(rule, value, key, start, end, said))
        if not denied:
            return found
        return [
            each
            for each in found
            if denied.isdisjoint((each.key, at) for at in range(each.start, each.end))
        ]


def _said(phrase: Tokens, tokens: list[Token]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for element, token in zip(phrase, tokens, strict=False):
        if element in token.kinds:
            found.setdefault(element[1:-1], []).append(token.kinds[element])
    return found


class Said:
    """A message as its tokens, and the phrases in them."""

    def __init__(
        self, words: Vocabulary, text: str, *files: str, tokens: list[Token] | None = None
    ) -> None:
        self.text = text
        self.tokens = words.tokens(text) if tokens is None else tokens
        self.heard = [each for file in files for each in words.find(file, self.tokens)]
        self._spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._starts: dict[tuple[str, int], int] = {}
        self._ends: dict[tuple[str, int], int] = {}
        for _, _, name, start, end, _ in self.heard:
            self._spans[name].append((start, end))
            self._starts[name, start] = max(end, self._starts.get((name, start), 0))
            self._ends[name, end] = start  # the shortest: they come by their first token

        self.names = self._spans.keys()

    def of(self, *names: str) -> list[Match]:
        """Return the phrases of these tables."""
        return [each for each in self.heard if each.name in names]

    def all(self, name: str) -> list[tuple[int, int]]:
        return self._spans.get(name, [])

    def spans(self, name: str, first: int, end: int) -> list[tuple[int, int]]:
        return [each for each in self._spans.get(name, ()) if first <= each[0] and each[1] <= end]

    def has(self, name: str, first: int, end: int) -> bool:
        return name in self._spans and bool(self.spans(name, first, end))

    def is_said(self, name: str) -> bool:
        return name in self._spans

    def begins(self, name: str, at: int) -> bool:
        return (name, at) in self._starts

    def end_of(self, name: str, at: int) -> int:
        """Return where the longest phrase that begins here ends; 0 if there is none."""
        return self._starts.get((name, at), 0)

    def start_of(self, name: str, at: int) -> int:
        """Return where the shortest phrase that ends here begins; here if there is none."""
        return self._ends.get((name, at), at)

    def ends(self, name: str, at: int, first: int = 0) -> bool:
        return self._ends.get((name, at), -1) >= first

    def said(self, first: int, end: int) -> str:
        """Return the tokens as they are written."""
        return self.text[self.tokens[first].start : self.tokens[end - 1].end]

    def words(self, first: int, end: int) -> list[str]:
        return [each.word for each in self.tokens[first:end]]

    def is_kind(self, at: int, *kinds: str) -> bool:
        """Return whether the token is one of these classes; no token is of none."""
        return 0 <= at < len(self.tokens) and not self.tokens[at].kinds.keys().isdisjoint(kinds)

    def is_loose(self, at: int) -> bool:
        """Return whether a space, or the end, follows this token."""
        return at + 1 == len(self.tokens) or self.tokens[at + 1].start > self.tokens[at].end


def _numeric(kind: str, text: str) -> dict[str, Any]:
    """Return what a number may be: a count, a day, a year, or a date as its parts."""
    if kind in {"amount", "side"}:
        return {f"{{{kind}}}": numbers.value(text)}
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
