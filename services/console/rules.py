"""What people may do, how they prove who they are, and what an API key is."""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    VIEWER = "viewer"
    SALES = "sales"
    OPS = "ops"
    PRIVACY = "privacy"
    ADMIN = "admin"


ON_CALL, OPS, SALES = (Role.VIEWER, Role.OPS), (Role.OPS,), (Role.SALES,)
PRIVACY = (Role.PRIVACY,)


@dataclass(frozen=True, slots=True)
class Ways:
    """How people may log in."""

    passwords: bool
    issuer: str
    """The identity provider; empty: there is none."""
    words: tuple[str, ...] = ()
    """The company's words, which no password should consist of."""

    @property
    def opens(self) -> dict[str, Any]:
        """Return what the fragment `opens` takes: which credentials count today."""
        return {"issuer": self.issuer, "passwords": self.passwords}


POWERS = frozenset({Role.PRIVACY, Role.ADMIN})
"""Roles that need a second factor."""
READERS = frozenset(Role) - {Role.VIEWER}
"""Roles that see personal data, or let others do so: every admin is told who gains one."""
LANGUAGES = ("pl", "en")
SHORTEST, LONGEST = 12, 256
INVITATION = timedelta(hours=24)
STEP_UP = timedelta(minutes=10)
MOST_WRONG_CODES = 20
"""Per account, until there was none for an hour; then only a recovery code opens."""
FREE_FAILURES = 5
LONGEST_WAIT = 20.0
"""Seconds. Shorter than the gateway waits, or nobody could log in during an attack."""
PREFIX = "osk"
ID = re.compile(r"[A-Z2-7]{10}")
LONGEST_LIFE = timedelta(days=400)
MOST_KEYS = 1_000
"""In force at a time: each gateway keeps them all in memory, and gets them in one answer."""


def login_wait(failures: int) -> float:
    """Return how many seconds the next try waits. It is made then: nobody is locked out."""
    over = failures - FREE_FAILURES
    return min(2.0**over, LONGEST_WAIT) if over >= 0 else 0.0


def may(roles: Iterable[str], *needed: Role) -> bool:
    return bool(set(roles) & set(needed))


@dataclass(frozen=True, slots=True)
class Secret:
    """A new key. Its text is shown once and never stored; of random bits SHA-256 is enough."""

    key_id: str
    text: str

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


def new_key_id() -> str:
    return base64.b32encode(secrets.token_bytes(7)).decode()[:10]


def new_secret(key_id: str) -> Secret:
    return Secret(key_id, f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}")


def expiry_fault(expires_at: datetime, now: datetime) -> str | None:
    """Return what is wrong with this expiry of a key."""
    if expires_at <= now:
        return "is in the past"
    if expires_at > now + LONGEST_LIFE:
        return f"at most {LONGEST_LIFE.days} days from now"
    return None
