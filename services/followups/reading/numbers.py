"""Reads numbers in digits, as people write them, and in words."""

import re
from functools import lru_cache

from services.followups.reading.text import (
    READ_NUMBERS,
    fold,
    has_any,
    spaces,
    vocabulary,
    words,
)

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

_UNITS = {
    1: "jeden jednego one ein eins", 2: "dwa dwie dwoch oba obie two zwei", 3: "trzy trzech three drei",
    4: "cztery czterech four vier", 5: "piec pieciu five funf", 6: "szesc szesciu six sechs",
    7: "siedem siedmiu seven sieben", 8: "osiem osmiu eight acht", 9: "dziewiec dziewieciu nine neun",
}  # fmt: skip
_TEENS = {
    10: "dziesiec dziesieciu ten zehn", 11: "jedenascie jedenastu eleven", 12: "dwanascie dwunastu twelve",
    13: "trzynascie trzynastu thirteen", 14: "czternascie czternastu fourteen", 15: "pietnascie pietnastu fifteen",
    16: "szesnascie szesnastu sixteen", 17: "siedemnascie siedemnastu seventeen",
    18: "osiemnascie osiemnastu eighteen", 19: "dziewietnascie dziewietnastu nineteen",
}  # fmt: skip
_TENS = {
    20: "dwadziescia dwudziestu twenty zwanzig", 30: "trzydziesci trzydziestu thirty dreissig",
    40: "czterdziesci czterdziestu forty vierzig", 50: "piecdziesiat piecdziesieciu fifty funfzig",
    60: "szescdziesiat szescdziesieciu sixty sechzig", 70: "siedemdziesiat siedemdziesieciu seventy",
    80: "osiemdziesiat osiemdziesieciu eighty achtzig", 90: "dziewiecdziesiat dziewiecdziesieciu ninety",
}  # fmt: skip
_HUNDREDS = {
    100: "sto stu setka setke hundred hundert", 200: "dwiescie dwustu", 300: "trzysta trzystu", 400: "czterysta czterystu",
    500: "piecset pieciuset", 600: "szescset szesciuset", 700: "siedemset siedmiuset",
    800: "osiemset osmiuset", 900: "dziewiecset dziewieciuset",
}  # fmt: skip
_WORDS = {
    word: (rank, number)
    for rank, words in enumerate((_UNITS, _TEENS, _TENS, _HUNDREDS))
    for number, text in words.items()
    for word in text.split()
}
_WORD = re.compile(r"[^\W\d_]+")
_AND_A_HALF = re.compile(
    r"(?<![\d.,])(\d{1,6})\s+(?:i\s+p[óo][łl]|and\s+a\s+half)\b", re.IGNORECASE
)
_HALF = vocabulary("pol half")
_HUNDRED = re.compile(r"\bst[óo]wk\w*(?=\s+(?:metr|m2|m\b|kwadrat))", re.IGNORECASE)
_COMMA = re.compile(r"(?<=\d)\s+przecinek\s+(?=\d)", re.IGNORECASE)
_HALF_HUNDRED = re.compile(r"\bp[óo][łl]\s+setki\b", re.IGNORECASE)


@lru_cache(64)  # several readers convert the same text
def in_digits(text: str) -> str:
    """Convert numbers in words to digits: `sto dwadzieścia tysięcy` becomes `120 tysięcy`.

    Hundreds, tens and units join only in falling order, so a phone number in words stays three
    numbers.
    """
    said = words(text)
    if "setki" in said:
        text = _HALF_HUNDRED.sub("50", text)
    if has_any(text, ("owk", "ówk")):
        text = _HUNDRED.sub("100", text)
    if not _WORDS.keys().isdisjoint(said):
        text = _counted(text)
    if "przecinek" in said:
        text = _COMMA.sub(",", text)
    return text if _HALF.isdisjoint(said) else _AND_A_HALF.sub(r"\1,5", text)


def _counted(text: str) -> str:
    parts: list[str] = []
    total, rank, end, done = 0, 4, 0, 0
    for match in _WORD.finditer(text):
        if len(parts) > 2 * READ_NUMBERS:
            break
        known = _WORDS.get(fold(match[0]))
        if known is None:
            continue
        word_rank, number = known
        joins = total and text[end : match.start()].isspace() and _falls(rank, word_rank)
        if not joins:
            if total:
                parts.append(f"{total}")
                done = end
            parts.append(text[done : match.start()])
            total, done = 0, match.start()
        total, rank, end = total + number, word_rank, match.end()
    if total:
        parts.append(f"{total}")
        done = end
    parts.append(text[done:])
    return "".join(parts)


def _falls(rank: int, next_rank: int) -> bool:
    return next_rank < rank and rank > 1  # nothing joins after a teen or a unit
