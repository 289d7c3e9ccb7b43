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


LANGUAGES = ("pl", "en")
SHORTEST, LONGEST = 12, 256
INVITATION = timedelta(hours=24)
STEP_UP = timedelta(minutes=10)
FREE_FAILURES = 5
LONGEST_WAIT = 20.0
"""Seconds. Shorter than the gateway waits for an answer, or nobody could log in amid an attack."""


def password_fault(password: str, email: str) -> str | None:
    """Return the name of the fault: too_short, too_long, is_email or one_letter."""
    if len(password) < SHORTEST:
        return "too_short"
    if len(password) > LONGEST:
        return "too_long"
    if email.casefold() in password.casefold():
        return "is_email"
    return "one_letter" if len(set(password)) < 4 else None


def login_wait(failures: int) -> float:
    """Return for how many seconds the next try waits. It is made then: nobody is locked out."""
    over = failures - FREE_FAILURES
    return min(2.0**over, LONGEST_WAIT) if over >= 0 else 0.0


def may(roles: Iterable[str], *needed: Role) -> bool:
    return bool(set(roles) & set(needed))
