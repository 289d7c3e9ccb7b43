"""Removes facts from a text, so that the next reader does not misread them."""

import re
import tomllib
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from services.followups.reading.phrases import plain
from services.followups.rules.facts import Question

Reading = tuple[str, dict[str, Any]]
Reader = Callable[[str, date, Question | None], Reading]

MARK = "\N{BULLET}"
"""Replaces a fact, so that its neighbours do not run together."""


def told(file: str) -> dict[str, Any]:
    """Return a file of words: vocabulary/<file>.toml."""
    path = Path(__file__).parent / "vocabulary" / f"{file}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def spaces(text: str) -> str:
    return " ".join(text.split())


READ_FIRST, READ_LAST, READ_NUMBERS = 700, 300, 40


def readable(message: str) -> str:
    """Return what readers get of a message: their patterns are not linear, so it is bounded (P17).

    A longer one says its facts at its beginning and its end; staff get the whole.
    """
    if len(message) > READ_FIRST + READ_LAST:
        message = f"{message[:READ_FIRST]}\n{message[-READ_LAST:]}"
    return "".join(_NUMBERS.split(message, READ_NUMBERS)[: 2 * READ_NUMBERS])


_NUMBERS = re.compile(r"(\d+)")
PHONE_MARK = MARK * 2
"""The same of a phone number: a name stands beside one rather than beside an area."""


_WORD = re.compile(r"[^\W\d_]+")


@lru_cache(64)
def words(text: str) -> frozenset[str]:
    """Return the words of a folded text: without one of its words a pattern need not be searched."""
    return frozenset(_WORD.findall(plain(text)))
