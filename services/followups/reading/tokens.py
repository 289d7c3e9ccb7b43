"""Folds a message into tokens, and finds the phrases of a vocabulary in them (phrases.py).

vocabulary/*.toml has the words of each class, and by what they mean the phrases.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

from services.followups.reading import numbers
from services.followups.reading.phrases import STEM, Heard, Phrases, Tokens, plain, spellings
from services.followups.reading.text import MARK, told, words

_TOKEN = re.compile(
    r"(?P<word>[^\W\d_]+)|(?P<iso>\b20\d\d-\d\d?(?:-\d\d?)?\b)"
    r"|(?<![\d.])(?P<dotted>\d\d?[./]\d\d?[./](?:20)?\d\d\b)"
    r"|(?<![\d./])(?P<of_year>\d\d?[./]20\d\d\b)"
    r"|(?<![\d.,/])(?P<day_month>\d\d?[./]\d\d?(?!\d|[.,/]\d))"
    r"|(?P<number>\d+)|(?P<sign>[^\w\s])"
)
_NOTHING: Mapping[str, list[Any]] = {}
_DIGITS = re.compile(r"\d+")


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
    begun: list[Phrases]
    """What may follow it in a phrase that it begins: with most words none does."""


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
    """The classes of words of files, and the phrases by name and value."""

    def __init__(self, *files: str, pattern: re.Pattern[str] = _TOKEN) -> None:
        self._pattern = pattern
        self._words: dict[str, dict[str, Any]] = defaultdict(dict)
        self._stems: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        self._unlike: set[str] = set()
        self._phrases = Phrases()
        for file in files:
            self._read_file(file)
        self._read = lru_cache(8_192)(self._look_up)

    def _read_file(self, name: str) -> None:
        tables = told(name)
        self._unlike.update(tables.pop("unlike", ()))
        lists = tables.pop("lists", {})
        for kind, values in tables.pop("words", {}).items():
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
                        self._phrases.add(tokens, meaning)

    def _look_up(
        self, said: str, group: str
    ) -> tuple[str, Mapping[str, Any], Tokens, list[Phrases]]:
        word = plain(said)
        kinds: dict[str, Any] = {"{word}": word} if group == "word" else {}
        if said.lower() not in self._unlike:
            for stem, each in self._stems.get(word[:STEM], {}).items():
                if word.startswith(stem):
                    kinds |= each
            kinds |= self._words.get(word, {})
        if group not in {"word", "sign"}:
            kinds |= _numeric(group, word)
        keys = word, *kinds
        return word, kinds, keys, self._phrases.after(keys)

    def may_be_in(self, text: str) -> bool:
        """Return whether a phrase may begin with a word (not a number or a sign) of the text."""
        return any(self._read(word, "word")[3] for word in words(text))

    def tokens(self, text: str) -> list[Token]:
        read, new = self._read, tuple.__new__  # a third faster than a call of the class
        return [
            new(Token, match.span() + read(match[0], match.lastgroup))
            for match in self._pattern.finditer(text)
        ]

    def joined(self, tokens: Sequence[Token], *kinds: str) -> Token:
        """Return one token of these classes in place of several."""
        start, word, keys = tokens[0].start, tokens[0].word, (tokens[0].word, *kinds)
        given = dict.fromkeys(kinds)
        return Token(start, tokens[-1].end, word, given, keys, self._phrases.after(keys))

    def find(self, tokens: list[Token]) -> list[Match]:
        """Return the phrases in the tokens, in the order of their first one."""
        starts = [at for at, each in enumerate(tokens) if each.begun]
        if not starts:
            return []
        words, new = [*(each.keys for each in tokens), ("$",)], tuple.__new__
        found: list[Match] = []
        denied: set[tuple[str, int]] = set()
        for start in starts:
            heard: Heard = []
            for node in tokens[start].begun:
                node.hear(words, start + 1, heard)
            for (rule, value, key, phrase, is_not), end in heard:
                if is_not:
                    denied.update((key, at) for at in range(start, end))
                else:
                    said = _said(phrase, tokens[start:end]) if phrase else _NOTHING
                    stop = min(end, len(tokens))  # without `$`
                    found.append(new(Match, (rule, value, key, start, stop, said)))
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
    """A message as its tokens, and the phrases of a vocabulary in them."""

    vocabulary: ClassVar[Vocabulary]

    def __init__(self, text: str, tokens: list[Token] | None = None) -> None:
        self.text = text
        self.tokens = tokens or self.vocabulary.tokens(text)
        self.heard = self.vocabulary.find(self.tokens)
        self._spans: dict[str, list[tuple[int, int]]] = {}
        for _, _, name, start, end, _ in self.heard:
            self._spans.setdefault(name, []).append((start, end))
        self.names = self._spans.keys()

    def of(self, *names: str) -> list[Match]:
        """Return the phrases of these tables."""
        return [each for each in self.heard if each.name in names]

    def apart(self, *names: str, order: Sequence[str]) -> list[Match]:
        """Return the phrases of these tables that do not overlap: of those that begin together the one
        of which the name, or the value, comes first in the order, and of these the longest.
        """
        found: list[Match] = []
        for each in sorted(
            self.of(*names),
            key=lambda one: (one.start, order.index(one[len(names) == 1]), -one.end),
        ):
            if not found or each.start >= found[-1].end:
                found.append(each)
        return found

    def all(self, name: str) -> list[tuple[int, int]]:
        return self._spans.get(name, [])

    def spans(self, name: str, first: int, end: int) -> list[tuple[int, int]]:
        return [each for each in self.all(name) if first <= each[0] and each[1] <= end]

    def has(self, name: str, first: int, end: int) -> bool:
        return bool(self.spans(name, first, end))

    def is_said(self, name: str) -> bool:
        return name in self.names

    def end_of(self, name: str, at: int) -> int:
        """Return where the longest phrase that begins here ends; 0 if there is none."""
        return max((end for start, end in self.all(name) if start == at), default=0)

    def begins(self, name: str, at: int) -> bool:
        return self.end_of(name, at) > 0

    def start_of(self, name: str, at: int) -> int:
        """Return where the shortest phrase that ends here begins; here if there is none."""
        return max((start for start, end in self.all(name) if end == at), default=at)

    def ends(self, name: str, at: int, first: int = 0) -> bool:
        return any(end == at and start >= first for start, end in self.all(name))

    def said(self, first: int, end: int) -> str:
        """Return the tokens as they are written."""
        return self.text[self.tokens[first].start : self.tokens[end - 1].end]

    def without(self, *spans: tuple[int, int], mark: str = MARK) -> str:
        """Return the text with a mark for each of these tokens."""
        text = self.text
        for start, end in sorted(spans, reverse=True):
            before, after = text[: self.tokens[start].start], text[self.tokens[end - 1].end :]
            text = f"{before} {mark} {after}"
        return text

    def words(self, first: int, end: int) -> list[str]:
        return [each.word for each in self.tokens[first:end]]

    def is_kind(self, at: int, *kinds: str) -> bool:
        """Return whether the token is one of these classes; no token is of none."""
        return 0 <= at < len(self.tokens) and not self.tokens[at].kinds.keys().isdisjoint(kinds)

    def is_title(self, at: int) -> bool:
        return self.is_kind(at, "{word}") and self.text[self.tokens[at].start].isupper()

    def is_loose(self, at: int) -> bool:
        """Return whether a space, or the end, follows this token."""
        return at + 1 == len(self.tokens) or self.tokens[at + 1].start > self.tokens[at].end


def _numeric(kind: str, text: str) -> dict[str, Any]:
    """Return what a number may be: a count, a day, a year, or a date as its parts."""
    if kind in {"amount", "side"}:
        return {f"{{{kind}}}": numbers.value(text)}
    parts = [int(each[:9]) for each in _DIGITS.findall(text)]
    if kind in {"iso", "dotted", "of_year"}:
        year, *others = parts[:: 1 if kind == "iso" else -1]
        return {"{date}": [year % 100 + 2000, *others]}
    if kind != "number":
        return {f"{{{kind}}}": parts}
    number = parts[0]
    found: dict[str, Any] = {"{number}": number, "{count}": number} if number < 100 else {}
    if 0 < number <= 31:
        found["{day}"] = number
    if 2000 <= number < 2100:
        found["{year}"] = number
    return found
