"""What a silence covers: its matchers and its times. Pure.

A regular expression has no groups, so a value is read once, a character at a time, with one number
whose bits are the places that may come next (extended Shift-And, Navarro and Raffinot 2002, 4.3).
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

FIELDS = ("event_type", "target", "severity", "source", "dedup_key")
PAYLOAD = "payload."
MOST_MATCHERS = 8
MOST_TEXT = 300
MOST_VALUE = 500
"""A longer value fits no `=~`: its alert is sent."""
_TEXT = re.compile(r"\s*([\w.\-/]+)\s*(=~|!=|=)\s*(.*?)\s*", re.DOTALL)
_ITEM = re.compile(
    r"(\\[^A-Za-z0-9]|\[\^?(?:\\.|[^\\\]])+\]|[^\\\[\](){}*+?|^$])([*+?]?)", re.DOTALL
)
_RANGE = re.compile(r"\\?(?P<low>(?<=\\).|[^\\])(?:-\\?(?P<high>(?<=\\).|[^\\]))?", re.DOTALL)


class BadMatcherError(ValueError):
    """Says the column."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(f"column {at + 1}: {text}")


class _Class(NamedTuple):
    ranges: tuple[tuple[str, str], ...]
    excludes: bool
    bit: int

    def accepts(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges) != self.excludes


class Pattern:
    def __init__(self, text: str, at: int = 0) -> None:
        """:raises BadMatcherError: it has what cannot be read in linear time, such as a group"""
        self._chars, self._classes, self._any = dict[str, int](), list[_Class](), 0
        self._optional = self._repeated = self._end = 0
        bit, column = 1, 0
        self._start = bit
        while column < len(text):
            if text[column] == "|":
                self._end |= bit
                bit, column = bit << 1, column + 1
                self._start |= bit
                continue
            if (found := _ITEM.match(text, column)) is None:
                raise BadMatcherError(at + column, f"{text[column]} cannot be here: {_ALLOWED}")
            bit <<= 1
            self._item(found[1], bit, at + column)
            self._optional |= bit if found[2] in {"*", "?"} else 0
            self._repeated |= bit if found[2] in {"*", "+"} else 0
            column = found.end()
        self._end |= bit

    def _item(self, text: str, bit: int, at: int) -> None:
        if text == ".":
            self._any |= bit
        elif text.startswith("[") and len(text) > 1:
            excludes = text[1] == "^"
            parts = _RANGE.finditer(text, 1 + excludes, len(text) - 1)
            ranges = [(one["low"], one["high"] or one["low"]) for one in parts]
            if any(low > high for low, high in ranges):
                raise BadMatcherError(at, f"{text} has a range that ends before it begins")
            self._classes.append(_Class(tuple(ranges), excludes, bit))
        else:
            char = text[-1]
            self._chars[char] = self._chars.get(char, 0) | bit

    def fits(self, value: str) -> bool:
        """Return whether the whole value fits."""
        if len(value) > MOST_VALUE:
            return False
        active, masks = self._skipped(self._start), dict[str, int]()
        for char in value:
            if (mask := masks.get(char)) is None:
                mask = self._any | self._chars.get(char, 0)
                mask |= sum(each.bit for each in self._classes if each.accepts(char))
                masks[char] = mask
            active = self._skipped(((active << 1) | (active & self._repeated)) & mask)
            if not active:
                return False
        return bool(active & self._end)

    def _skipped(self, active: int) -> int:
        """Add what is reached over optional items: a carry runs through each run of their bits."""
        entered = (active << 1) & self._optional
        passed = ((self._optional + entered) ^ self._optional) & self._optional
        return active | entered | passed


_ALLOWED = "characters, ., [a-z], \\ before a sign, each with *, + or ?, and | between whole texts"


@dataclass(frozen=True, slots=True)
class Matcher:
    name: str
    op: str
    value: str
    pattern: Pattern | None = None

    def holds(self, alert: Any) -> bool:
        """:param alert: a row; what it does not have is the empty text"""
        found = _value(alert, self.name)
        if self.pattern is not None:
            return self.pattern.fits(found)
        return (found == self.value) == (self.op == "=")


@lru_cache(maxsize=1_000)
def matcher(text: str) -> Matcher:
    """Read a matcher, as in `payload.labels.host=~web-[0-9]+`.

    :raises BadMatcherError:
    """
    if len(text) > MOST_TEXT:
        raise BadMatcherError(MOST_TEXT, f"longer than {MOST_TEXT} characters")
    if (found := _TEXT.fullmatch(text)) is None:
        raise BadMatcherError(0, "is no name, then =, != or =~, then a value")
    name, op, value = found.groups()
    if name not in FIELDS and not (name.startswith(PAYLOAD) and len(name) > len(PAYLOAD)):
        raise BadMatcherError(found.start(1), f"no {name}: {', '.join(FIELDS)} or {PAYLOAD}NAME")
    at = found.start(3)
    if len(value) > 1 and value[0] == value[-1] == '"':  # as Alertmanager writes it
        value, at = value[1:-1], at + 1
    return Matcher(name, op, value, Pattern(value, at) if op == "=~" else None)


def _value(alert: Any, name: str) -> str:
    if name in FIELDS:
        return getattr(alert, name) or ""
    found = _inside(alert.payload, name.removeprefix(PAYLOAD))
    if isinstance(found, str):
        return found
    return "" if found is None or isinstance(found, dict | list) else json.dumps(found)


def _inside(payload: Any, path: str) -> Any:
    """Return the field at a path of names with dots between them; a name may have dots, too."""
    head = path
    while isinstance(payload, dict) and head:
        if head in payload:
            rest = path[len(head) + 1 :]
            return _inside(payload[head], rest) if rest else payload[head]
        head = head.rpartition(".")[0]
    return None


@dataclass(frozen=True, slots=True)
class Weekly:
    """Begins on these days of the week by a local clock; `to` may be on the next day."""

    days: frozenset[int]  # ISO: 1 is Monday
    begins: time
    ends: time
    zone: ZoneInfo

    def until(self, at: datetime) -> datetime | None:
        """Return when the period that covers this moment ends.

        In a repeated hour it is the whole of it, in a skipped one nothing, as business hours are.
        """
        today = at.astimezone(self.zone).date()
        for day in (today, today - timedelta(days=1)):
            last = day if self.begins < self.ends else day + timedelta(days=1)
            opens = datetime.combine(day, self.begins, self.zone).astimezone(UTC)
            closes = datetime.combine(last, self.ends, self.zone).replace(fold=1).astimezone(UTC)
            if day.isoweekday() in self.days and opens <= at < closes:
                return closes
        return None


@dataclass(frozen=True, slots=True)
class Silence:
    id: int
    matchers: Sequence[Matcher]
    critical: bool
    """It covers critical alerts, too."""
    begins: datetime
    ends: datetime
    weekly: Weekly | None = None

    def until(self, at: datetime) -> datetime | None:
        """Return until when it runs on from this moment; None: it does not run."""
        if not self.begins <= at < self.ends:
            return None
        over = self.ends if self.weekly is None else self.weekly.until(at)
        return over and min(over, self.ends)

    def fits(self, alert: Any) -> bool:
        if alert.severity == "critical" and not self.critical:
            return False
        return all(each.holds(alert) for each in self.matchers)


class Quiet(NamedTuple):
    until: datetime
    silence: int


def quiet(silences: Iterable[Silence], alert: Any) -> Quiet | None:
    """Return the silence of an alert: of those that ran when it was accepted the last to end."""
    running = ((each, each.until(alert.accepted_at)) for each in silences)
    found = (Quiet(until, each.id) for each, until in running if until and each.fits(alert))
    return max(found, default=None)
