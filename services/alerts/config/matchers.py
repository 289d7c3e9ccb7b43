"""The matchers of silences: `payload.labels.host=~web-[0-9]+`.

A regular expression has no groups, and pydantic matches it by Rust's `regex`, in linear time.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import StringConstraints, TypeAdapter

FIELDS = ("event_type", "target", "severity", "source", "dedup_key")
PAYLOAD = "payload."
MOST_MATCHERS = 8
MOST_TEXT = 300
MOST_VALUE = 500
"""A longer value fits no `=~`: its alert is sent."""
_TEXT = re.compile(r"\s*([\w.\-/]+)\s*(=~|!=|=)\s*(.*?)\s*", re.DOTALL)
_ITEM = re.compile(
    r"(\\[^A-Za-z0-9]|\[\^?(?:\\.|[^\\\]])+\]|[^\\[\](){}*+?|^$])([*+?]?)", re.DOTALL
)
_RANGE = re.compile(r"\\?(?P<low>(?<=\\).|[^\\])(?:-\\?(?P<high>(?<=\\).|[^\\]))?", re.DOTALL)
_ALLOWED = "characters, ., [a-z], \\ before a sign, each with *, + or ?, and | between whole texts"


class BadMatcherError(ValueError):
    """Says the column."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(f"column {at + 1}: {text}")


def _pattern(text: str, at: int) -> Any:
    """Return a validator of the values that fit as a whole.

    :raises BadMatcherError: it has what is not allowed, such as a group
    """
    whole = rf"\A(?:{''.join(_items(text, at))})\z"
    fits = Annotated[str, StringConstraints(pattern=whole, max_length=MOST_VALUE)]
    return TypeAdapter(fits).validator


def _items(text: str, at: int) -> Iterator[str]:
    column = 0
    while column < len(text):
        if text[column] == "|":
            yield "|"
            column += 1
            continue
        if (found := _ITEM.match(text, column)) is None:
            raise BadMatcherError(at + column, f"{text[column]} cannot be here: {_ALLOWED}")
        yield _item(found[1], at + column) + found[2]
        column = found.end()


def _item(text: str, at: int) -> str:
    """Return it as Rust writes it, each character by its number: that has no meaning of its own."""
    if text == ".":
        return "(?s:.)"
    if not text.startswith("[") or len(text) == 1:
        return _number(text[-1])
    excludes = text[1] == "^"
    parts = _RANGE.finditer(text, 1 + excludes, len(text) - 1)
    ranges = [(one["low"], one["high"] or one["low"]) for one in parts]
    if any(low > high for low, high in ranges):
        raise BadMatcherError(at, f"{text} has a range that ends before it begins")
    inside = "".join(f"{_number(low)}-{_number(high)}" for low, high in ranges)
    return f"[{'^' if excludes else ''}{inside}]"


def _number(char: str) -> str:
    return rf"\x{{{ord(char):x}}}"


@dataclass(frozen=True, slots=True)
class Matcher:
    name: str
    op: str
    value: str
    pattern: Any = None  # of `=~`

    def __str__(self) -> str:
        return f"{self.name}{self.op}{self.value}"

    def __call__(self, alert: Any) -> bool:
        """Return whether it holds.

        :param alert: a row; what it does not have is the empty text
        """
        found = _value(alert, self.name)
        if self.pattern is not None:
            return bool(self.pattern.isinstance_python(found))
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
    return Matcher(name, op, value, _pattern(value, at) if op == "=~" else None)


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
