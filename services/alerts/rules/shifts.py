"""Who is on call: an override, else the shift that began last, else the schedule's default. Pure.

Shifts and overrides include their start and exclude their end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto


class Rule(StrEnum):
    OVERRIDE = auto()
    SHIFT = auto()
    OTHERWISE = auto()


Period = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Shift:
    """Times are aware; `person` is a key of [people]."""

    begins: datetime
    ends: datetime
    person: str

    def covers(self, at: datetime) -> bool:
        return self.begins <= at < self.ends


@dataclass(frozen=True, slots=True)
class OnCall:
    person: str
    rule: Rule
    until: datetime | None = None  # until the person or the reason changes; None: unknown


def who(
    otherwise: str, shifts: Sequence[Shift], overrides: Sequence[Shift], now: datetime
) -> OnCall:
    person, rule = chosen = _choose(otherwise, shifts, overrides, now)
    for at in _changes(shifts, overrides, now):
        if _choose(otherwise, shifts, overrides, at) != chosen:
            return OnCall(person, rule, at)
    return OnCall(person, rule)


def gaps(
    shifts: Sequence[Shift], overrides: Sequence[Shift], begin: datetime, end: datetime
) -> Iterator[Period]:
    """Yield the periods in which only `otherwise` is on call."""
    at = begin
    for until in [*(each for each in _changes(shifts, overrides, begin) if each < end), end]:
        if _choose("", shifts, overrides, at)[1] is Rule.OTHERWISE:
            yield at, until
        at = until


def _choose(
    otherwise: str, shifts: Sequence[Shift], overrides: Sequence[Shift], at: datetime
) -> tuple[str, Rule]:
    for some, rule in ((overrides, Rule.OVERRIDE), (shifts, Rule.SHIFT)):
        # Of two that began together, always pick the same one, whatever their order.
        covering = [(each.begins, each.person) for each in some if each.covers(at)]
        if covering:
            return max(covering)[1], rule
    return otherwise, Rule.OTHERWISE


def _changes(
    shifts: Sequence[Shift], overrides: Sequence[Shift], after: datetime
) -> Iterator[datetime]:
    times = {at for each in (*shifts, *overrides) for at in (each.begins, each.ends)}
    yield from sorted(at for at in times if at > after)
