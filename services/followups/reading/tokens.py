"""Folds a message into tokens, and finds in them what a vocabulary has: words, phrases and rules.

vocabulary/*.toml has the words of each class, by what they mean the phrases, and what several of them
say together. phrases.py has their language.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from services.followups.reading import numbers
from services.followups.reading.phrases import (
    ENDING,
    GAP,
    LONGEST_GAP,
    STEM,
    Rule,
    plain,
    spellings,
)
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
_SAID = ""
"""The key of what a phrase means, beside the words that may go on with it."""
_AFTER_GAP = "...."
"""Marks what may follow a gap."""
Node = dict[str, Any]
Spans = dict[int, list[tuple[str, int]]]
Lists = Mapping[str, Sequence[str]]
NO_LISTS: Lists = MappingProxyType({})


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
    keys: tuple[str, ...]
    """The word, its classes, and those beginnings and endings of it that phrases have."""
    begun: list[Node]
    """What may follow it in a phrase that it begins: with most words none does."""
    opens: list[Node]
    """The same in a phrase of a class."""


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
    """Words of classes, phrases by name and value, and rules of what these say together.

    The cost per word of a message does not depend on the number of phrases: they are a tree, in which
    words and classes lead on. A class also has phrases: these are found first.
    """

    def __init__(
        self, *files: str, words: Lists = NO_LISTS, pattern: re.Pattern[str] = _TOKEN
    ) -> None:
        self._pattern = pattern
        self._forms: dict[str, dict[str, Any]] = defaultdict(dict)
        """The classes of each word, and of each beginning and ending, which has its star."""
        self._parts: set[str] = set()
        """The beginnings and endings that phrases have."""
        self._unlike: set[str] = set()
        self._classes: Node = {}
        """Their phrases."""
        self._phrases: Node = {}
        self._names: set[str] = set()
        self._means: dict[str, set[str]] = defaultdict(set)
        """What each name means by itself."""
        self._rules: dict[str, list[tuple[str, Rule]]] = defaultdict(list)
        """Keyed by a name that they need: a message checks only rules that it may meet."""
        self._add_words(words)
        for file in files:
            self._read_file(file)
        self._read = lru_cache(8_192)(self._look_up)

    def _read_file(self, file: str) -> None:
        tables = told(file)
        self._unlike.update(tables.pop("unlike", ()))
        rules = tables.pop("rules", {})
        self._add_words(tables.pop("lists", {}))
        for kind, values in tables.pop("words", {}).items():
            for value, forms in values.items():
                known = int(value) if value.isdecimal() else value
                self._add_words({kind: forms}, known)
        for table, values in tables.items():
            for value, phrases in values.items():
                for phrase in phrases:
                    self.add(phrase, f"{table} {value}", table, value)
        for name, ways in rules.items():
            for way in ways:
                self.add_rule(name, way)

    def _add_words(self, words: Lists, value: object = None) -> None:
        for kind, forms in words.items():
            for form in map(plain, forms):
                if " " in form or form[:1] == "{":
                    self._insert(self._classes, form.split(), f"{{{kind}}}")
                else:
                    self._forms[form][f"{{{kind}}}"] = value

    def add(self, phrase: str, key: str, name: str = "", value: str = "") -> None:
        self._names.add(key)
        is_not = phrase[0] == "!"
        for elements in spellings(phrase.removeprefix("!")):
            classes = tuple(each for each in elements if each[0] == "{")
            self._insert(self._phrases, elements, (name, value, key, classes, is_not))

    def add_rule(self, name: str, text: str) -> None:
        """:param text: `a + b - c`, of which each is a name of phrases, or a phrase"""
        rule = Rule.of(text)
        if len(rule.needs) == 1 and not rule.bars:
            self._means[next(iter(rule.needs))].add(name)
        else:
            key = min(rule.needs, key=lambda need: (len(self._rules.get(need, ())), need))
            self._rules[key].append((name, rule))
        for part in (rule.needs | rule.bars) - self._names:
            self.add(part, part)

    def _insert(self, node: Node, elements: Iterable[str], meaning: object) -> None:
        for each in elements:
            if "*" in each:
                self._parts.add(each)
            node = node.setdefault(each, {_AFTER_GAP: None} if each == GAP else {})
        node.setdefault(_SAID, []).append(meaning)

    def _look_up(
        self, said: str, group: str
    ) -> tuple[str, Mapping[str, Any], tuple[str, ...], list[Node], list[Node]]:
        word = plain(said) or said  # nothing is left of an accent by itself
        kinds: dict[str, Any] = {"{word}": word} if group == "word" else {}
        parts = [f"*{word[at:]}" for at in range(1, len(word) - ENDING + 1)]
        parts += [f"{word[:size]}*" for size in range(STEM, len(word) + 1)]
        for form in [*parts, word] if said.lower() not in self._unlike else ():
            kinds |= self._forms.get(form, _NOTHING)
        if group not in {"word", "sign"}:
            kinds |= _numeric(group, word)
        keys = word, *kinds, *self._parts.intersection(parts)
        return word, kinds, keys, *self._led(keys)

    def _led(self, keys: Iterable[str]) -> tuple[list[Node], list[Node]]:
        """Return what may follow these in a phrase, and in a phrase of a class."""
        trees = (self._phrases, self._classes)
        begun, opens = ([tree[key] for key in keys if key in tree] for tree in trees)
        return begun, opens

    def may_be_in(self, text: str) -> bool:
        """Return whether a phrase may begin with a word (not a number or a sign) of the text."""
        return any(any(self._read(word, "word")[3:]) for word in words(text))

    def tokens(self, text: str) -> list[Token]:
        read, new = self._read, tuple.__new__  # a third faster than a call of the class
        return [
            new(Token, match.span() + read(match[0], match.lastgroup))
            for match in self._pattern.finditer(text)
        ]

    def joined(self, tokens: Sequence[Token], *kinds: str) -> Token:
        """Return one token of these classes in place of several."""
        start, word, keys = tokens[0].start, tokens[0].word, (tokens[0].word, *kinds)
        return Token(start, tokens[-1].end, word, dict.fromkeys(kinds), keys, *self._led(keys))

    def find(self, tokens: list[Token]) -> list[Match]:
        """Return the phrases in the tokens, in the order of their first one."""
        words, spans = [*(each.keys for each in tokens), ("$",), ()], Spans()
        for at, each in enumerate(tokens):
            opened = each.opens and _heard([(node, at + 1) for node in each.opens], words, {})
            if opened:
                spans[at] = opened
        found: list[Match] = []
        denied: set[tuple[str, int]] = set()
        for start, each in enumerate(tokens):
            if not each.begun and start not in spans:
                continue
            begun = [(node, start + 1) for node in each.begun]
            if start in spans:
                tree = self._phrases
                begun += [(tree[key], end) for key, end in spans[start] if key in tree]
            for meaning, end in _heard(begun, words, spans):
                name, value, key, classes, is_not = meaning
                if is_not:
                    denied.update((key, at) for at in range(start, end))
                else:
                    said = _said(classes, tokens[start:end]) if classes else _NOTHING
                    stop = min(end, len(tokens))  # without `$`
                    found.append(tuple.__new__(Match, (name, value, key, start, stop, said)))
        if not denied:
            return found
        return [
            each for each in found if denied.isdisjoint((each.key, at) for at in range(*each[3:5]))
        ]

    def meant(self, names: AbstractSet[str]) -> AbstractSet[str]:
        """Return these names of phrases, and those of the rules that they satisfy."""
        rules = (rule for name in names for rule in self._rules.get(name, ()))
        meant = {name for name, rule in rules if rule.holds(names)}
        return meant.union(names, *(self._means.get(name, ()) for name in names))


def _heard(
    begun: list[tuple[Node, int]], words: list[tuple[str, ...]], spans: Spans
) -> list[tuple[Any, int]]:
    """Return what the phrases mean that go on from here, with the token after each.

    :param words: the keys of each token
    :param spans: the classes of which a phrase begins at a token, with its end
    """
    heard: list[tuple[Any, int]] = []
    for node, at in begun:  # which grows
        if _SAID in node:
            heard += [(meaning, at) for meaning in node[_SAID]]
            if len(node) == 1:
                continue
        # After a gap the node is the gap's, and the tokens are as many as a gap may leave out.
        ats = range(at, min(at + LONGEST_GAP + 1, len(words))) if _AFTER_GAP in node else (at,)
        for each in ats:
            if GAP in node:
                begun.append((node[GAP], each))
            begun += [(node[key], each + 1) for key in words[each] if key in node]
            if each in spans:
                begun += [(node[key], end) for key, end in spans[each] if key in node]
    return heard


def _said(classes: Sequence[str], tokens: Sequence[Token]) -> dict[str, list[Any]]:
    """Return the values of the classes of a phrase: of each the next token's that has one."""
    found: dict[str, list[Any]] = {}
    for each in classes:
        for at, token in enumerate(tokens):
            if (value := token.kinds.get(each)) is not None:
                found.setdefault(each[1:-1], []).append(value)
                tokens = tokens[at + 1 :]
                break
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
        self.names = self.vocabulary.meant(self._spans.keys())

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

    def all(self, name: str, first: int = 0, end: int | None = None) -> list[tuple[int, int]]:
        """Return where the phrases of this meaning are, between these tokens."""
        end = len(self.tokens) if end is None else end
        return [each for each in self._spans.get(name, ()) if first <= each[0] and each[1] <= end]

    def has(self, name: str, first: int, end: int) -> bool:
        return bool(self.all(name, first, end))

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
        return self.marked(dict.fromkeys(spans, mark))

    def marked(self, marks: Mapping[tuple[int, int], str]) -> str:
        """Return the text with these in place of tokens."""
        text = self.text
        for (start, end), mark in sorted(marks.items(), reverse=True):
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
