"""The data subjects that an alert names: e-mails, phones and conversations, as keyed hashes.

Intake stores them with the row, and an export or an erasure looks for the same hashes. A word that
only looks like a phone number costs a hash that is never looked for.
"""

import hashlib
import hmac
from collections.abc import Iterable
from enum import IntEnum
from itertools import islice
from typing import Any
from uuid import UUID

from libs.common.mentions import MAX_SUBJECTS, emails, phones, strings
from libs.common.signed_links import parse_keys

_HASH_BYTES = 16

Hash = str
"""A bytea literal of PostgreSQL: `\\x`, the kind, the hash in hexadecimal."""


class Kind(IntEnum):
    EMAIL = 1
    PHONE = 2
    CONVERSATION = 3


class Subjects:
    """Stores hashes of the first key and searches for those of all keys, for key rotation."""

    def __init__(self, keys: str) -> None:
        self._keys = tuple(parse_keys(keys).values())

    def named_by(self, payload: Any, *texts: str | None) -> list[Hash]:
        """Return hashes of all that the payload and these texts name, at most MAX_SUBJECTS."""
        named = {(Kind.CONVERSATION, each) for each in conversations(payload)}
        for text in (*strings(payload), *(text for text in texts if text)):
            named |= {(Kind.EMAIL, each) for each in emails(text)}
            named |= {(Kind.PHONE, each) for each in phones(text)}
            if len(named) > MAX_SUBJECTS:
                break
        return [_hash(self._keys[0], *each) for each in islice(sorted(named), MAX_SUBJECTS)]

    def hashes(self, kind: Kind, values: Iterable[str]) -> list[Hash]:
        """Return every hash with which a row may name one of these values."""
        return [_hash(key, kind, value) for value in values for key in self._keys]


def names_somebody_else(named: Iterable[Hash], mine: Iterable[Hash]) -> bool:
    """Return whether a row names an e-mail address that is not among mine."""
    prefix = rf"\x{Kind.EMAIL:02x}"
    return any(each.startswith(prefix) for each in set(named) - set(mine))


def _hash(key: bytes, kind: Kind, value: str) -> Hash:
    digest = hmac.digest(key, f"{kind.name}\0{value}".encode(), hashlib.sha256)
    return rf"\x{kind:02x}{digest[:_HASH_BYTES].hex()}"


def conversations(payload: Any) -> set[str]:
    """Return the ids of conversations: every `conversation_id`, on any level."""
    found, waiting = set(), [payload]
    while waiting:
        match waiting.pop():
            case dict() as inner:
                waiting += inner.values()
                try:
                    found.add(str(UUID(str(inner.get("conversation_id")))))
                except ValueError:
                    continue
            case list() as inner:
                waiting += inner
    return found
