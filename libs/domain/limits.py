"""Limits of requests, as text: "30 per minute", "200/hour", "10 per 5 minutes"."""

import re
from typing import Annotated

from pydantic import AfterValidator

LONGEST_SECONDS = 24 * 3600
LARGEST_QUOTA = 1_000_000_000
UNITS = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
_LIMIT = re.compile(
    r"([0-9]{1,10})\s*(?:/|per)\s*(?:([0-9]{1,5})\s*)?(day|hour|minute|second)s?", re.IGNORECASE
)


def parse(text: str) -> tuple[int, int]:
    """Return how many requests a limit allows, and in how many seconds.

    :raises ValueError: says what is wrong with the text
    """
    found = _LIMIT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'{text!r} is not a limit like "30 per minute"')
    quota, seconds = int(found[1]), int(found[2] or 1) * UNITS[found[3].lower()]
    if not (1 <= quota <= LARGEST_QUOTA and 1 <= seconds <= LONGEST_SECONDS):
        raise ValueError(f"{text!r} is not a limit of 1 or more requests per a day or less")
    return quota, seconds


def _checked(text: str) -> str:
    parse(text)
    return text


Limit = Annotated[str, AfterValidator(_checked)]
