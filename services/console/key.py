"""An API key: how it is made, and what it may be."""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

PREFIX = "osk"
ID = re.compile(r"[A-Z2-7]{10}")
LONGEST = timedelta(days=400)
MOST_KEYS = 1_000
"""In force at a time: each gateway holds them all in memory, and gets them in one answer."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A new key. Its text is shown once and never stored; of random bits SHA-256 is enough."""

    key_id: str
    text: str

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


def new_id() -> str:
    return base64.b32encode(secrets.token_bytes(7)).decode()[:10]


def new_secret(key_id: str) -> Secret:
    return Secret(key_id, f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}")


def expiry_fault(expires_at: datetime, now: datetime) -> str | None:
    """Return what is wrong with this end of a key's life."""
    if expires_at <= now:
        return "is in the past"
    if expires_at > now + LONGEST:
        return f"at most {LONGEST.days} days from now"
    return None
