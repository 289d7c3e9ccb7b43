"""Keys: one per person, wrapped by a master key; destroying it is what erases the person."""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.common.tokens import parse_keys

KEY_BYTES = 32
NONCE_BYTES = 12  # random: a person's key sees a few hundred cells, far below 2^32


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A secret under a master key: a person's key, or an address (`Vault.seal_address`)."""

    master_key_id: str
    wrapped: bytes


class PersonKey:
    """Encrypts one person's cells; a cell cannot be moved to another person or column."""

    def __init__(self, person_id: UUID, key: bytes) -> None:
        self._person = person_id.bytes
        self._cipher = AESGCM(key)

    def encrypt(self, column: str, text: str | None) -> bytes | None:
        if text is None:
            return None
        return _seal(self._cipher, text.encode(), self._person + column.encode())

    def decrypt(self, column: str, cell: bytes | None) -> str | None:
        """:raises cryptography.exceptions.InvalidTag: altered, or of another person or column"""
        if cell is None:
            return None
        return _open(self._cipher, cell, self._person + column.encode()).decode()


class Vault:
    """Wraps with the first master key; unwraps with any, so that keys can be rotated."""

    def __init__(self, master_keys: str, hash_key: str) -> None:
        keys = parse_master_keys(master_keys)
        self._masters = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current = next(iter(keys))
        self._hash_key = decode_hash_key(hash_key)

    def new_key(self, person_id: UUID) -> tuple[PersonKey, WrappedKey]:
        key = secrets.token_bytes(KEY_BYTES)
        return PersonKey(person_id, key), self._wrap(key, person_id.bytes)

    def unwrap(self, person_id: UUID, wrapped: WrappedKey) -> PersonKey:
        """:raises KeyError: wrapped under a master key that is no longer configured"""
        return PersonKey(person_id, self._unwrap(wrapped, person_id.bytes))

    def rewrap(self, person_id: UUID, wrapped: WrappedKey) -> WrappedKey:
        """Wrap the same key by the current master key.

        :raises KeyError: see `unwrap`
        """
        return self._wrap(self._unwrap(wrapped, person_id.bytes), person_id.bytes)

    def seal_address(self, erasure_id: UUID, address: str) -> WrappedKey:
        """Keep an address for an erasure under way: the person's own key is gone by then."""
        return self._wrap(address.encode(), b"erasure" + erasure_id.bytes)

    def open_address(self, erasure_id: UUID, sealed: WrappedKey) -> str:
        """:raises KeyError: see `unwrap`"""
        return self._unwrap(sealed, b"erasure" + erasure_id.bytes).decode()

    def _wrap(self, secret: bytes, context: bytes) -> WrappedKey:
        return WrappedKey(self.current, _seal(self._masters[self.current], secret, context))

    def _unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        return _open(self._masters[wrapped.master_key_id], wrapped.wrapped, context)

    def address_hash(self, address: str) -> bytes:
        """Hash a normalised address for look-up of its person."""
        return self._hash("person", address)

    def suppression_hash(self, address: str) -> bytes:
        """Hash it for the suppression list, which outlives the person and must not lead to one."""
        return self._hash("suppression", address)

    def _hash(self, use: str, address: str) -> bytes:
        return hmac.digest(self._hash_key, f"{use}\0{address}".encode(), hashlib.sha256)


def parse_master_keys(text: str) -> dict[str, bytes]:
    """:raises ValueError: names the key id at fault, never its bytes"""
    keys = parse_keys(text)
    for key_id, key in keys.items():
        if len(key) != KEY_BYTES:
            raise ValueError(f"key {key_id!r} must have {KEY_BYTES} bytes")
    return keys


def decode_hash_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("the hash key is not base64") from None
    if len(key) < KEY_BYTES:
        raise ValueError(f"the hash key needs {KEY_BYTES} bytes or more")
    return key


def _seal(cipher: AESGCM, data: bytes, context: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, data, context)


def _open(cipher: AESGCM, cell: bytes, context: bytes) -> bytes:
    return cipher.decrypt(cell[:NONCE_BYTES], cell[NONCE_BYTES:], context)
