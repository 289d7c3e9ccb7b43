"""Signed links for mail: HMAC-SHA256 over subject, purpose, action, key id and issue time."""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

MINIMUM_KEY_BYTES = 32


class InvalidToken(ValueError):  # noqa: N818 - reads as the answer it is
    """The token is malformed, forged, for another action, or too old."""


@dataclass(frozen=True, slots=True)
class Claims:
    subject: str
    purpose: str
    action: str
    issued_at: int
    """Seconds since 1970, UTC."""


def parse_keys(keys: str) -> dict[str, bytes]:
    """Read `id:base64[,id:base64…]`; the first key is the current one.

    :raises ValueError: names the key id at fault, never its bytes
    """
    parsed: dict[str, bytes] = {}
    for part in keys.split(","):
        key_id, _, encoded = part.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError(f"key {key_id!r} is not base64") from None
        if not key_id or "." in key_id or len(key) < MINIMUM_KEY_BYTES:
            raise ValueError(f"key {key_id!r} needs an id without a dot and 32 bytes or more")
        if key_id in parsed:
            raise ValueError(f"key {key_id!r} is listed twice")
        parsed[key_id] = key
    return parsed


class Tokens:
    """Signs with the first key; verifies with any, so that keys can be rotated.

    The subject is signed but not encrypted: whoever has the link can read it.
    """

    def __init__(self, keys: str) -> None:
        self._keys = parse_keys(keys)
        self._current = next(iter(self._keys))

    def sign(self, subject: str, purpose: str, action: str, now: datetime) -> str:
        claims = json.dumps([subject, purpose, action, int(now.timestamp())], ensure_ascii=False)
        payload = _encode(claims.encode())
        signature = _encode(self._mac(self._current, payload))
        return f"{self._current}.{payload}.{signature}"

    def verify(
        self, token: str, action: str, now: datetime, max_age: timedelta | None = None
    ) -> Claims:
        """Return the token's claims, if it is ours and was made for this action.

        :raises InvalidToken: also for a token of another action
        """
        if not token.isascii():
            raise InvalidToken
        key_id, _, rest = token.partition(".")
        payload, _, signature = rest.partition(".")
        if key_id not in self._keys:
            raise InvalidToken
        expected = _encode(self._mac(key_id, payload))
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise InvalidToken
        claims = Claims(*json.loads(_decode(payload)))  # authentic, so well-formed
        age = now.timestamp() - claims.issued_at
        if claims.action != action or (max_age is not None and age > max_age.total_seconds()):
            raise InvalidToken
        return claims

    def _mac(self, key_id: str, payload: str) -> bytes:
        return hmac.digest(self._keys[key_id], f"{key_id}.{payload}".encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
