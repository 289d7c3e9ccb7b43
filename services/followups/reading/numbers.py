"""Reads numbers in digits, as people write them, and in words."""

import re
from functools import lru_cache

from services.followups.reading.phrases import plain
from services.followups.reading.text import READ_NUMBERS, spaces, told, words

FIRST_DIGIT = r"\d(?<![\w.,]\d)"
"""That of a number. A pattern that begins with a digit is searched faster than one that looks behind."""
# `250000`, `250 000`, `250.000`, `250,000`, `1,5`, `80.5`
NUMBER = (
    rf"{FIRST_DIGIT}(?:\d{{0,2}}(?:[ .,]\d{{3}}){{1,3}}(?:[.,]\d\d)?(?![.,]?\d)"
    r"|\d{0,11}(?:[.,]\d{1,2})?(?!\d))"
)
HAS_DIGIT = re.compile(r"\d")
_GROUPED = re.compile(r"(\d{1,3}(?:[ .,]\d{3}){1,3})(?:[.,]\d\d)?")


def value(text: str) -> float:
    if grouped := _GROUPED.fullmatch(text):
        return float(re.sub(r"[ .,]", "", grouped[1]))
    return float(text.replace(",", "."))


def number(text: str) -> float | None:
    """Read a number as people write it: `250 000`, `80,5`, `1.234,00`."""
    said = spaces(text)
    return value(said) if re.fullmatch(NUMBER, said) else None


# --- in words ---------------------------------------------------------------------------------

_NUMBERS = told("numbers")
_RANKS = ("units", "teens", "tens", "hundreds")
_WORDS = {
    word: (rank, int(number))
    for rank, name in enumerate(_RANKS)
    for number, words in _NUMBERS[name].items()
    for word in words
}
_WRITTEN, _PARTED = (
    [(re.compile(said, re.IGNORECASE), new) for said, new in _NUMBERS[name].items()]
    for name in ("written", "parted")
)
_LED = frozenset(_NUMBERS["led"])
_WORD = re.compile(r"[^\W\d_]+")


@lru_cache(64)  # several readers convert the same text
def in_digits(text: str) -> str:
    """Convert numbers in words to digits: `sto dwadzieścia tysięcy` becomes `120 tysięcy`.

    Hundreds, tens and units join only in falling order, so a phone number in words stays three
    numbers.
    """
    for whole, parts in _PARTED:
        text = whole.sub(parts, text)
    said = words(text)
    if not _WORDS.keys().isdisjoint(said):
        text = _counted(text)
    for written, number in () if _LED.isdisjoint(said) else _WRITTEN:
        text = written.sub(number, text)
    return text


def _counted(text: str) -> str:
    parts: list[str] = []
    total, rank, end, done = 0, 4, 0, 0
    for match in _WORD.finditer(text):
        known = _WORDS.get(plain(match[0]))
        if known is None or len(parts) > 2 * READ_NUMBERS:
            continue
        is_apart = not text[end : match.start()].isspace()
        # Nothing joins after a teen or a unit.
        if not total or is_apart or rank < 2 or known[0] >= rank:
            parts += [f"{total}"] * (total > 0) + [text[end if total else done : match.start()]]
            total, done = 0, match.start()
        total, rank, end = total + known[1], known[0], match.end()
    return "".join([*parts, f"{total}" if total else "", text[end if total else done :]])
