"""Routes a message by its phrases: an emergency, a complaint, spam, … before the form sees it.

Each route's phrases are in followups.toml. A phrase is words in this order, in any case, with or
without Polish diacritics. `zalew*` matches a beginning, `*liscie` an ending, and `...` up to four
words. `{defect}` is any phrase of that `[words]` list. `a + b` needs both anywhere in the message,
and `a - b` the first without the second. A match of a route's `unless` excludes that route.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

from services.followups.rules.facts import Question

Then = Literal["form", "contact_first", "contact", "nothing", "close", "end"]
"""What follows the answer. `form`: the form's next question. `contact_first`: the form, but the
question for a contact comes first. `contact`: only the question for a contact. `nothing`: no
question this time. `close`: what happens to the request, and no more questions. `end`: no more
replies but thanks."""
Action = Literal["call", "call_times", "no_calls", "erasure", "lost", "quote", "resume", "mails"]

GAP = "..."
SIGN = re.compile(r" ([+-]) ")
LONGEST_GAP = 4
STEM, ENDING = 3, 2
"""Minimum lengths of a word's beginning and ending; phrases are indexed by them."""
_WORD = re.compile(r"[^\W_]+")
_COMBINING = re.compile("[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u20d0-\u20ff]")
_LIST = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Topic:
    """A kind of request other than a lead; staff get it as an alert `visitor.<name>`."""

    severity: str
    label: Mapping[str, str]
    at_once: bool
    """Notify staff even when no contact is known."""


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    words: tuple[str, ...]
    unless: tuple[str, ...]
    answer: Mapping[str, str]
    ask: Mapping[str, str]
    """Asks for the contact, instead of the script's own question."""
    told: Mapping[str, str]
    """The reply after staff were notified."""
    told_without_email: Mapping[str, str]
    """The same, if no e-mail address is known."""
    again: Mapping[str, str]
    """The reply to later messages, instead of the answer."""
    then: Then
    topic: str | None
    action: Action | None
    first: bool
    """The answer comes before the greeting: an emergency."""
    lead: bool
    """The person may still be a lead."""
    at_once: bool
    """Staff are notified of its topic even when no contact is known."""
    alone: bool
    """Matches only a message that says nothing else: a goodbye."""
    asks: bool = False
    """Matches only a question, and is answered only to whoever is a lead."""
    always: bool = False
    """It is answered whatever the conversation is about, even in an emergency."""
    skips: tuple[Question, ...] = ()
    """What the form does not ask any more: a budget of a person who asks for a price."""

    @property
    def holds(self) -> bool:
        """The route replaces the form: later messages belong to it."""
        return self.then in {"contact", "end"}


@lru_cache(64)  # a turn folds the same message several times
def fold(text: str) -> tuple[str, ...]:
    """Return the words of a text in lower case, without diacritics."""
    plain = text.lower()
    if not plain.isascii():
        plain = _COMBINING.sub("", unicodedata.normalize("NFKD", plain.replace("ł", "l")))
    return tuple(_WORD.findall(plain))


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


Tokens = tuple[str, ...]


class _Node:
    """A node of the phrase index: possible next words.

    The cost per word of a message does not depend on the number of phrases: whole words are looked
    up, and beginnings by their first letters.
    """

    __slots__ = ("after_gap", "beginnings", "endings", "numbers", "words")

    def __init__(self) -> None:
        # Of 100,000 nodes most end a phrase: nothing is allocated for what may follow.
        self.numbers: tuple[int, ...] = ()
        """Numbers of the phrases that end here."""
        self.after_gap: _Node | None = None
        self.words: dict[str, _Node] = _NO_NODES
        self.beginnings: dict[str, dict[str, _Node]] = _NO_NODES
        self.endings: dict[str, dict[str, _Node]] = _NO_NODES

    def add(self, tokens: Tokens, number: int) -> None:
        node = self
        for token in tokens:
            letters = token.strip("*")
            if token == GAP:
                node.after_gap = node = node.after_gap or _Node()
                continue
            if token == letters:
                known = node.words = node.words or {}
            elif token[0] == "*":
                node.endings = node.endings or {}
                known = node.endings.setdefault(letters[-ENDING:], {})
            else:
                node.beginnings = node.beginnings or {}
                known = node.beginnings.setdefault(letters[:STEM], {})
            node = known.get(letters) or known.setdefault(letters, _Node())
        node.numbers += (number,)

    def hear(self, words: Sequence[str], at: int, heard: set[int]) -> None:
        """Add the numbers of the phrases that continue at this word; the last one is empty."""
        heard.update(self.numbers)
        if self.after_gap:
            for skip in range(min(LONGEST_GAP + 1, len(words) - at)):
                self.after_gap.hear(words, at + skip, heard)
        word = words[at]
        if (node := self.words.get(word)) is not None:
            node.hear(words, at + 1, heard)
        if self.beginnings and (known := self.beginnings.get(word[:STEM])):
            for letters, node in known.items():
                if word.startswith(letters):
                    node.hear(words, at + 1, heard)
        if self.endings and (known := self.endings.get(word[-ENDING:])):
            for letters, node in known.items():
                if word.endswith(letters) and word != letters:
                    node.hear(words, at + 1, heard)


_NO_NODES: dict[str, Any] = {}


class Routes:
    """All routes, in configured order: of several that match, the first one counts."""

    def __init__(
        self, routes: Sequence[Route], words: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> None:
        self._routes = tuple(routes)
        self._places = {route.name: place for place, route in enumerate(self._routes)}
        self._phrases = _Node()
        self._hear = lru_cache(64)(self._heard)
        self._rules: dict[int, list[tuple[int, bool, set[int], set[int]]]] = {}
        """Keyed by their first part: a message checks only rules whose first part it has."""
        numbers: dict[str, int] = {}
        for place, route in enumerate(self._routes):
            for vetoes, phrases in ((False, route.words), (True, route.unless)):
                for first, *rest in map(SIGN.split, phrases):
                    needs: set[int] = set()
                    bars: set[int] = set()
                    for sign, part in zip(["+", *rest[::2]], [first, *rest[1::2]], strict=True):
                        if part not in numbers:
                            numbers[part] = len(numbers)
                            self._add(part, numbers[part], words)
                        (needs if sign == "+" else bars).add(numbers[part])
                    rule = (place, vetoes, needs, bars)
                    self._rules.setdefault(numbers[first], []).append(rule)

    def _add(self, part: str, number: int, words: Mapping[str, Sequence[str]]) -> None:
        for tokens in _spellings(part, words):
            self._phrases.add(tokens, number)

    def named(self, name: str | None) -> Route | None:
        """Return the route; None if it is no longer configured."""
        place = self._places.get(name or "")
        return None if place is None else self._routes[place]

    def with_action(self, action: Action) -> list[Route]:
        return [route for route in self._routes if route.action == action]

    def comes_before(self, route: Route, other: Route) -> bool:
        return self._places[route.name] < self._places[other.name]

    def find(self, message: str, before: str = "") -> list[Route]:
        """Return the routes that match a message, in configured order.

        :param before: the previous message, in which a request to staff may have begun:
            `robiliście u mnie podłogę` and then `deski się rozjeżdżają`
        """
        heard = self._hear(message)
        found = self._matching(heard)
        if found or not before:
            return found
        return [route for route in self._matching(heard | self._hear(before)) if route.topic]

    def _heard(self, message: str) -> frozenset[int]:
        words = (*fold(message), "")
        heard: set[int] = set()
        for at in range(len(words)):
            self._phrases.hear(words, at, heard)
        return frozenset(heard)

    def _matching(self, heard: frozenset[int]) -> list[Route]:
        found: set[int] = set()
        vetoed: set[int] = set()
        for number in heard:
            for place, vetoes, needs, bars in self._rules.get(number, ()):
                if needs <= heard and bars.isdisjoint(heard):
                    (vetoed if vetoes else found).add(place)
        return [self._routes[place] for place in sorted(found - vetoed)]


def _spellings(part: str, words: Mapping[str, Sequence[str]]) -> list[Tokens]:
    """Return every phrase that a part stands for, with each `{list}` expanded."""
    found: list[Tokens] = [()]
    for token in part.split():
        match = _LIST.fullmatch(token)
        ways = [tuple(map(_plain, way.split())) for way in (words[match[1]] if match else [token])]
        found = [before + way for before in found for way in ways]
    return found


def _plain(token: str) -> str:
    return token if token == GAP else token.replace(token.strip("*"), "".join(fold(token)))
