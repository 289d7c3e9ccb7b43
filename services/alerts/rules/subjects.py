"""The data subjects that an alert names: e-mails, phones and conversations, as keyed hashes.

Intake stores them with the row, and an export or an erasure looks for the same hashes. A word that
only looks like a phone number costs a hash that nothing searches for.
"""

import hashlib
import hmac
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Any
from uuid import UUID

from libs.domain.mentions import MAX_SUBJECTS, emails, phones, strings, without
from libs.domain.signed_links import parse_keys

_HASH_BYTES = 16
_CONTACTS = ("email", "phone", "address")
"""The fields that say who an alert is about; the last one belongs to `once`."""

Hash = str
"""A bytea literal of PostgreSQL: `\\x`, the kind, the hash in hexadecimal."""


class Kind(IntEnum):
    EMAIL = 1
    PHONE = 2
    CONVERSATION = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """Finds the rows of a data subject."""

    own: Collection[Hash]
    """The e-mail or phone that was asked for, and the conversations it was found in."""
    numbers: Collection[Hash] = ()
    """Phone numbers given in those conversations, which are unproven."""

    @property
    def hashes(self) -> list[Hash]:
        return [*self.own, *self.numbers]

    def holds(self, named: Iterable[Hash]) -> bool:
        """Return whether a row that names these names the subject.

        A row that shares only an unproven number does not, if it names another e-mail address.
        """
        named = set(named)
        return not named.isdisjoint(self.own) or not (
            named.isdisjoint(self.numbers) or names_somebody_else(named, self.own)
        )


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

    def only_mentions(
        self, wanted: Wanted, about: Any, address: str | None = None, dedup_key: str | None = None
    ) -> bool:
        """Return whether an alert that names the subject has contacts, all of other people."""
        given = [each for each in _fields(about, *_CONTACTS) if isinstance(each, str | int)]
        contacts = self.named_by(given, address)
        talks = [{"conversation_id": each} for each in conversations(about)]
        return bool(contacts) and not wanted.holds(
            [*contacts, *self.named_by(talks), *self.named_by(None, dedup_key)]
        )

    def strike(self, value: Any, gone: Iterable[Hash]) -> Any:
        """Return the value without the addresses and numbers that have these hashes."""
        gone, lost = set(gone), set[str]()
        for text in strings(value):
            for kind, found in ((Kind.EMAIL, emails(text)), (Kind.PHONE, phones(text))):
                lost |= {each for each in found if not gone.isdisjoint(self.hashes(kind, [each]))}
        return without(value, lost, lambda text: emails(text) | phones(text))


def names_somebody_else(named: Iterable[Hash], mine: Iterable[Hash]) -> bool:
    """Return whether a row names an e-mail address that is not among mine."""
    prefix = rf"\x{Kind.EMAIL:02x}"
    return any(each.startswith(prefix) for each in set(named) - set(mine))


def _hash(key: bytes, kind: Kind, value: str) -> Hash:
    digest = hmac.digest(key, f"{kind.name}\0{value}".encode(), hashlib.sha256)
    return rf"\x{kind:02x}{digest[:_HASH_BYTES].hex()}"


def conversations(payload: Any) -> set[str]:
    """Return the ids of conversations: every `conversation_id`, on any level."""
    found = set()
    for each in _fields(payload, "conversation_id"):
        with suppress(ValueError):
            found.add(str(UUID(str(each))))
    return found


def _fields(payload: Any, *names: str) -> Iterator[Any]:
    waiting = [payload]
    while waiting:
        match waiting.pop():
            case dict() as inner:
                waiting += inner.values()
                yield from (inner[name] for name in names if name in inner)
            case list() as inner:
                waiting += inner
