"""Normalisation of phone numbers, the same in every service."""

import re
from typing import Annotated

from pydantic import AfterValidator

_SEPARATORS = re.compile(r"[\s().\-/]")
_COUNTRY = "48"
"""The default country code, for a number without one."""
_NATIONAL_DIGITS = 9


class MalformedPhone(ValueError):  # noqa: N818 - reads as the answer it is
    """not a phone number; write it with its country, as in +48601234567"""

    def __str__(self) -> str:
        return str(self.__doc__)


def normalise(number: str) -> str:
    """Return E.164: `601 234 567`, `0048 601234567` and `48601234567` are `+48601234567`.

    :raises MalformedPhone:
    """
    digits = _SEPARATORS.sub("", number[:40])
    if digits.startswith("00"):
        digits = f"+{digits[2:]}"
    if len(digits) == _NATIONAL_DIGITS:
        digits = f"+{_COUNTRY}{digits}"
    elif len(digits) == len(_COUNTRY) + _NATIONAL_DIGITS and digits.startswith(_COUNTRY):
        digits = f"+{digits}"
    if not re.fullmatch(r"\+[1-9][0-9]{7,14}", digits):
        raise MalformedPhone
    return digits


Phone = Annotated[str, AfterValidator(normalise)]
"""A normalised number as a field of a message or request body."""
