"""One result of a check, for `ostoja doctor`; it travels as JSON."""

from email.utils import parsedate_to_datetime
from typing import TypedDict

RESTART = "make up, or docker compose up -d"
MOST_SECONDS = 2.0
"""Between clocks: a permit is valid for 20 s, and leases use another machine's clock."""


class Finding(TypedDict):
    part: str
    status: str
    """ok, wrong, or unknown: it cannot be checked from there, so an operator must look."""
    found: str
    do: str
    """How to correct it."""


def ok(part: str, found: str) -> Finding:
    return Finding(part=part, status="ok", found=found, do="")


def wrong(part: str, found: str, do: str) -> Finding:
    return Finding(part=part, status="wrong", found=found, do=do)


def unknown(part: str, found: str, do: str = "") -> Finding:
    return Finding(part=part, status="unknown", found=found, do=do)


def clock(name: str, there: float, before: float, after: float, *, exact_to: float = 0) -> Finding:
    """Compare another clock, read between two readings of ours; all are Unix times.

    :param exact_to: the other clock's resolution: the true time may be this much later
    """
    early, late = before - (there + exact_to), there - after
    apart = max(early, late, 0.0)
    if apart > MOST_SECONDS:
        return wrong(
            "clock",
            f"{name}'s is {apart:.0f} s {'behind' if early > late else 'ahead of'} this machine's",
            "let NTP set the clock of every machine (timedatectl shows whether it does)",
        )
    return ok("clock", f"{name}'s clock agrees with this machine's")


def of_header(date: str) -> float:
    """Read HTTP's Date, in whole seconds."""
    return parsedate_to_datetime(date).timestamp()
