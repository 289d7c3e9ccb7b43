"""E-mail addresses and phone numbers in free text, in their normal forms."""

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from libs.domain import email_address, phone_number
from libs.domain.email_address import MalformedEmail
from libs.domain.phone_number import MalformedPhone

MAX_SUBJECTS = 1_000
"""Limit per message. A message with more is a list of people; 256 KiB can hold 40,000."""
_MAX_WORD = 4 * email_address.MAX_OCTETS

_WORD = re.compile(r'[^\s"<>(),;:\\/?&=\[\]{}|]+')
STRUCK = "[…]"
_AROUND_ADDRESS = "'`*_.!#$%^~+-"
_DIGITS = re.compile(r"\+?\d(?:[ \N{NO-BREAK SPACE}().\-/]{0,2}\d)*")
_PHONE_DIGITS = range(8, 16)
_NATIONAL = (9, 11)


def strings(payload: Any) -> Iterator[str]:
    """Yield every text and number in a value, including keys."""
    waiting = [payload]
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case dict() as found:
                waiting += [*found.keys(), *found.values()]
            case list() as found:
                waiting += found
            case int() | float() as number:
                yield str(number)


def emails(text: str) -> set[str]:
    """Find addresses in any spelling: `<Anna@Example.com>.`, `?to=anna%40…`."""
    found: set[str] = set()
    text = text.replace("%40", "@")
    if "@" not in text:
        return found
    for word in dict.fromkeys(_WORD.findall(text)):
        if "@" in word and len(word) <= _MAX_WORD:
            for candidate in {word, word.rstrip("."), word.strip(_AROUND_ADDRESS)}:
                try:
                    found.add(email_address.normalise(candidate))
                except MalformedEmail:
                    continue
        if len(found) > MAX_SUBJECTS:
            break
    return found


def without(
    value: Any, contacts: Collection[str], named_in: Callable[[str], Collection[str]]
) -> Any:
    """Return the value with normalised addresses and numbers struck out of every text in it.

    :param named_in: returns what a text names in whatever spelling; a text that still names one of
        them is struck out as a whole
    """
    gone = frozenset(contacts)

    def strike(text: str) -> str:
        text = _WORD.sub(lambda word: word[0] if gone.isdisjoint(emails(word[0])) else STRUCK, text)
        text = _DIGITS.sub(lambda run: run[0] if gone.isdisjoint(phones(run[0])) else STRUCK, text)
        return text if gone.isdisjoint(named_in(text)) else STRUCK

    def inside(value: Any) -> Any:
        match value:
            case str():
                return strike(value)
            case dict():
                return {strike(name): inside(each) for name, each in value.items()}
            case list() | tuple():
                return [inside(each) for each in value]
            case int() | float():
                return value if gone.isdisjoint(named_in(str(value))) else STRUCK
        return value

    return inside(value)


def phones(text: str) -> set[str]:
    """Find possible phone numbers, in E.164: the first nine digits of `601 234 567 80 m2`."""
    found: set[str] = set()
    for match in _DIGITS.finditer(text):
        if len(match[0]) >= _PHONE_DIGITS.start:
            found |= _phones_of(match[0])
        if len(found) > MAX_SUBJECTS:
            break
    return found


def _phones_of(run: str) -> set[str]:
    groups = re.findall(r"\d+", run)
    international = run.startswith(("+", "00"))
    lengths = _PHONE_DIGITS if international else _NATIONAL
    prefix = "+" if run.startswith("+") else ""
    found = set()
    for start in range(1 if international else min(len(groups), MAX_SUBJECTS)):
        digits = ""
        for group in groups[start : start + _PHONE_DIGITS.stop + 3]:
            digits += group
            if len(digits) > _PHONE_DIGITS.stop + 2:
                break
            if len(digits) - 2 * run.startswith("00") in lengths:
                try:
                    found.add(phone_number.normalise(prefix + digits))
                except MalformedPhone:
                    continue
    return found
