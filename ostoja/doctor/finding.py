from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    """It cannot be seen from here; a person has to look."""


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    verdict: Verdict
    found: str
    do: str = ""
    """What a person should do about it."""


def ok(part: str, found: str) -> Finding:
    return Finding(part, Verdict.OK, found)


def wrong(part: str, found: str, do: str) -> Finding:
    return Finding(part, Verdict.WRONG, found, do)


def unknown(part: str, found: str, do: str = "") -> Finding:
    return Finding(part, Verdict.UNKNOWN, found, do)
