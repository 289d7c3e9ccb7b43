"""People: what they may do, and how they prove who they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Role(StrEnum):
    VIEWER = "viewer"
    SALES = "sales"
    OPS = "ops"
    PRIVACY = "privacy"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Ways:
    """How people may log in."""

    passwords: bool
    issuer: str
    """The identity provider; empty: there is none."""
    words: tuple[str, ...] = ()
    """Of the company, as no password should be made."""


POWERS = frozenset({Role.PRIVACY, Role.ADMIN})
"""Who sees what is stored of people, or lets others do so."""
LANGUAGES = ("pl", "en")
SHORTEST, LONGEST = 12, 256
INVITATION = timedelta(hours=24)
STEP_UP = timedelta(minutes=10)
MOST_WRONG_CODES = 20
"""Of an account, until there was none for an hour; then only a recovery code opens."""
FREE_FAILURES = 5
LONGEST_WAIT = 20.0
"""Seconds. Shorter than the gateway waits for an answer, or nobody could log in amid an attack."""


def login_wait(failures: int) -> float:
    """Return for how many seconds the next try waits. It is made then: nobody is locked out."""
    over = failures - FREE_FAILURES
    return min(2.0**over, LONGEST_WAIT) if over >= 0 else 0.0


def may(roles: Iterable[str], *needed: Role) -> bool:
    return bool(set(roles) & set(needed))
