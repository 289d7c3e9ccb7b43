"""Keys: one per data subject, wrapped with a master key; destroying it erases the subject."""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.domain import signed_links

KEY_BYTES = 32
NONCE_BYTES = 12  # random: a subject's key seals a few hundred cells, far below 2^32


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A secret wrapped with a master key: a subject's key, or an order (`Vault.seal_order`)."""

    master_key_id: str
    wrapped: bytes


class SubjectKey:
    """Encrypts one subject's cells; a cell cannot be moved to another subject or column."""

    def __init__(self, subject_id: UUID, key: bytes) -> None:
        self._subject = subject_id.bytes
        self._cipher = AESGCM(key)

    def encrypt(self, column: str, text: str | None) -> bytes | None:
        if text is None:
            return None
        return _seal(self._cipher, text.encode(), self._subject + column.encode())

    def decrypt(self, column: str, cell: bytes | None) -> str | None:
        """:raises cryptography.exceptions.InvalidTag: altered, or for another subject or column"""
        if cell is None:
            return None
        return _open(self._cipher, cell, self._subject + column.encode()).decode()


class Vault:
    """Wraps with the first master key and unwraps with any, so that keys can be rotated."""

    def __init__(self, master_keys: str, hash_keys: str) -> None:
        keys = parse_keys(master_keys)
        self._masters = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current = next(iter(keys))
        self._hash_keys = decode_hash_keys(hash_keys)
        self.hash_keys = tuple(
            hmac.digest(key, b"fingerprint", hashlib.sha256).hex()[:16] for key in self._hash_keys
        )
        """Fingerprints of the hash keys, oldest first."""

    def new_key(self, subject_id: UUID) -> tuple[SubjectKey, WrappedKey]:
        key = secrets.token_bytes(KEY_BYTES)
        return SubjectKey(subject_id, key), self._wrap(key, subject_id.bytes)

    def unwrap(self, subject_id: UUID, wrapped: WrappedKey) -> SubjectKey:
        """:raises KeyError: wrapped with a master key that is no longer configured"""
        return SubjectKey(subject_id, self._unwrap(wrapped, subject_id.bytes))

    def rewrap(self, subject_id: UUID, wrapped: WrappedKey) -> WrappedKey:
        """Wrap the same key with the current master key.

        :raises KeyError: see `unwrap`
        """
        return self._wrap(self._unwrap(wrapped, subject_id.bytes), subject_id.bytes)

    def seal_order(self, erasure_id: UUID, subject: str) -> WrappedKey:
        """Seal an erasure's subject with a master key: its own key is destroyed by then."""
        return self._wrap(subject.encode(), b"erasure" + erasure_id.bytes)

    def open_order(self, erasure_id: UUID, sealed: WrappedKey) -> str:
        """:raises KeyError: see `unwrap`"""
        return self._unwrap(sealed, b"erasure" + erasure_id.bytes).decode()

    def _wrap(self, secret: bytes, context: bytes) -> WrappedKey:
        return WrappedKey(self.current, _seal(self._masters[self.current], secret, context))

    def _unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        return _open(self._masters[wrapped.master_key_id], wrapped.wrapped, context)

    def lookup_hash(self, identity: str) -> bytes:
        """Hash a normalised address or number for finding its subject."""
        return self._hash("lookup", identity)

    def suppression_hash(self, identity: str) -> bytes:
        """Hash it for the suppression list, which outlives the subject and must not identify it."""
        return self._hash("suppression", identity)

    def _hash(self, use: str, identity: str) -> bytes:
        return self.rehash(f"{use}\0{identity}".encode(), 0)

    def rehash(self, found: bytes, keys: int) -> bytes:
        """Take a hash made by this many of the oldest keys and hash it with the later ones.

        Each key hashes the previous key's result, so a key can be added without the addresses.
        Those of erased subjects, who must stay suppressed, are unknown.
        """
        for key in self._hash_keys[keys:]:
            found = hmac.digest(key, found, hashlib.sha256)
        return found


def parse_keys(text: str) -> dict[str, bytes]:
    """Read `id:base64[,id:base64…]`, keys of exactly 32 bytes.

    :raises ValueError: names the key id at fault, never its bytes
    """
    keys = signed_links.parse_keys(text)
    for key_id, key in keys.items():
        if len(key) != KEY_BYTES:
            raise ValueError(f"key {key_id!r} must have {KEY_BYTES} bytes")
    return keys


def decode_hash_keys(text: str) -> list[bytes]:
    """Read `newest[,older…]`.

    :returns: the oldest first
    """
    keys = []
    for part in reversed(text.split(",")):
        try:
            keys.append(base64.b64decode(part.strip(), validate=True))
        except binascii.Error:
            raise ValueError("a hash key is not base64") from None
        if len(keys[-1]) < KEY_BYTES:
            raise ValueError(f"a hash key needs {KEY_BYTES} bytes or more")
    return keys


def _seal(cipher: AESGCM, data: bytes, context: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, data, context)


def _open(cipher: AESGCM, cell: bytes, context: bytes) -> bytes:
    return cipher.decrypt(cell[:NONCE_BYTES], cell[NONCE_BYTES:], context)
