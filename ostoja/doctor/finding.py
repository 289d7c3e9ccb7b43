"""The result of a check."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    OK = "ok"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    """It cannot be checked from here; an operator must look."""


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    status: Status
    found: str
    do: str = ""
    """How to correct it."""


def ok(part: str, found: str) -> Finding:
    return Finding(part, Status.OK, found)


def wrong(part: str, found: str, do: str) -> Finding:
    return Finding(part, Status.WRONG, found, do)


def unknown(part: str, found: str, do: str = "") -> Finding:
    return Finding(part, Status.UNKNOWN, found, do)
