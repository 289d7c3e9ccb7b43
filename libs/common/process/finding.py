"""One result of a check, for `ostoja doctor`; it travels as JSON."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypedDict

from libs.common import beside

SAID: Mapping[str, Mapping[str, str]] = beside.toml(__file__)
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


def say(key: str, of: Mapping[str, Mapping[str, str]] = SAID, **values: Any) -> Finding:
    said = {"status": "wrong", "do": "", **of[key]}
    part, found, do = (said[each].format(**values) for each in ("part", "found", "do"))
    return Finding(part=part, status=said["status"], found=found, do=do.replace("RESTART", RESTART))


def clock(name: str, there: float, before: float, after: float, *, exact_to: float = 0) -> Finding:
    """Compare another clock, read between two readings of ours; all are Unix times.

    :param exact_to: the other clock's resolution: the true time may be this much later
    """
    early, late = before - (there + exact_to), there - after
    apart = max(early, late, 0.0)
    if apart > MOST_SECONDS:
        which = "behind" if early > late else "ahead of"
        return say("clock-apart", name=name, apart=apart, which=which)
    return say("clock", name=name)


def of_header(date: str) -> float:
    """Read HTTP's Date, in whole seconds."""
    return parsedate_to_datetime(date).timestamp()
