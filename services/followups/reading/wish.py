"""Reads what the person wants done, in their own words."""

import re
from functools import lru_cache

from services.followups.reading import corrections
from services.followups.reading.speech import heard
from services.followups.reading.text import beginnings, vocabulary
from services.followups.rules.facts import Question

_LETTERS = re.compile(r"[^\W\d_]{3,}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZĄĆĘŁŃÓŚŹŻ])")

_MAY_WANT = vocabulary(
    "chce chca chci potr szuk marz plan zale inte zain pros like wszy zrob skuc odno want need look drea od"
)


def is_wish(rest: str, asked: Question | None, works: tuple[str, ...]) -> bool:
    if _names_work(rest, works):
        return True
    if asked != "consent" and _is_desire(rest):
        return len(_LETTERS.findall(rest)) >= 2
    is_answer = asked == "wish" and len(_LETTERS.findall(rest)) >= 3 and not rest.endswith("?")
    return is_answer and not corrections.corrects(rest)  # `jednak 80 metrów, pomyliłem się`


def _is_desire(text: str) -> bool:
    if _MAY_WANT.isdisjoint(beginnings(text)):
        return False
    said = heard(text, "wish")
    return said.is_said("desire yes") or said.is_said("desire asks_about")


def _names_work(text: str, works: tuple[str, ...]) -> bool:
    first = _first_letters(works)
    words = _LETTERS.findall(text.lower())
    return any(word.startswith(works) for word in words if word[:3] in first)


@lru_cache(1)
def _first_letters(works: tuple[str, ...]) -> frozenset[str]:
    return frozenset([each[:3] for each in works])


def words(message: str, works: tuple[str, ...]) -> str:
    """Return the sentences that name works; if there are none, the whole message."""
    sentences = _SENTENCE_END.split(message)
    if len(sentences) == 1:
        return message
    telling = [text for text in sentences if _names_work(text, works) or _is_desire(text)]
    return " ".join(telling or sentences)
