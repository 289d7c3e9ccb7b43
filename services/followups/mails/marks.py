"""Signed marks in our addresses, by which a mail that comes back names its step.

    bounce+b<token>@example.com   the return path (VERP)
    bounce+u<token>@example.com   the mailto of List-Unsubscribe

A token is the step's id with a keyed hash: nobody can bounce somebody else. It has no capitals,
because mail servers change them.
"""

import base64
import hashlib
import hmac
from typing import Literal
from uuid import UUID

from libs.domain.signed_links import parse_keys

MAC_BYTES = 10
Action = Literal["b", "u"]


class Marks:
    """Signs with the first key; verifies with any."""

    def __init__(self, keys: str, address: str) -> None:
        """:param address: whose mailbox also takes `local+anything@`"""
        self._keys = list(parse_keys(keys).values())
        self._local, _, self._domain = address.partition("@")

    def address(self, action: Action, step: UUID) -> str:
        token = base64.b32encode(step.bytes + _mac(self._keys[0], action, step.bytes))
        return f"{self._local}+{action}{token.decode().rstrip('=').lower()}@{self._domain}"

    def step(self, token: str) -> UUID | None:
        """Return the step that a token names, if it is ours."""
        action, encoded = token[:1], token[1:]
        try:
            whole = base64.b32decode(encoded.upper() + "=" * (-len(encoded) % 8))
        except ValueError:
            return None
        step, mac = whole[:16], whole[16:]
        ours = [hmac.compare_digest(mac, _mac(key, action, step)) for key in self._keys]
        return UUID(bytes=step) if any(ours) and len(step) == 16 else None


def _mac(key: bytes, action: str, step: bytes) -> bytes:
    return hmac.digest(key, b"mail " + action.encode() + step, hashlib.sha256)[:MAC_BYTES]
