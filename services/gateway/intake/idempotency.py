"""Idempotency-Key: a repeated request gets the same response, for 24 h.

While Redis is unavailable each process remembers its own requests. An alert is then still delivered
once per target, because its id is derived from the key.

A chat reply repeats what a person wrote. So responses are encrypted with the client's own key, of
which only a hash is stored: erasures do not reach this cache, but nothing in it stays readable.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import hdrs, web
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.common.cache import Cache
from libs.common.http.application import Problem
from services.gateway.door.access import IDEMPOTENCY_KEY

KEPT_SECONDS = 24 * 3600.0
NONCE_BYTES = 12
RUNNING_SECONDS = 90.0
"""Longer than any request takes. A process that dies blocks its key for this long."""

_RUNNING, _DONE = b"r", b"d"
_SANE_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def key_of(request: web.Request) -> str | None:
    """:raises Problem: 422, the key is empty, over 255 characters or not printable ASCII."""
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not _SANE_KEY.fullmatch(key):
        raise Problem(
            422, errors=[(IDEMPOTENCY_KEY, "must be 1 to 255 printable ASCII characters")]
        )
    return key


@dataclass(slots=True)
class Claim:
    """The right to process a request; or, with `result`, its earlier response."""

    cache_key: str
    secret: bytes
    body_hash: str
    result: bytes | None = None
    keep: bytes | None = None
    """What its repetition gets; None: the request failed, or its outcome is unknown."""

    def seal(self, result: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(self.secret).encrypt(nonce, result, None)


class Idempotency:
    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    @asynccontextmanager
    async def once(self, key: str, *, route: str, holder: str, body: bytes) -> AsyncIterator[Claim]:
        """Claim a key of this route and holder (key holder or session); then keep or free it.

        :raises Problem: 409 the first request is still running, 422 the body is another
        """
        known_to_client = json.dumps([route, holder, key]).encode()
        claim = Claim(
            cache_key=hashlib.sha256(b"place" + known_to_client).hexdigest(),
            secret=(secret := hashlib.sha256(b"secret" + known_to_client).digest()),
            body_hash=hmac.new(secret, body, hashlib.sha256).hexdigest(),
        )
        running = _RUNNING + claim.body_hash.encode()
        if not await self._cache.add(claim.cache_key, running, RUNNING_SECONDS):
            claim.result = _opened(claim, await self._cache.get(claim.cache_key) or running)
            yield claim
            return
        try:
            yield claim
        finally:
            if claim.keep is None:
                await self._cache.delete(claim.cache_key)
            else:
                kept = _DONE + claim.body_hash.encode() + claim.seal(claim.keep)
                await self._cache.set(claim.cache_key, kept, KEPT_SECONDS)


def _opened(claim: Claim, kept: bytes) -> bytes:
    state, kept_hash, result = kept[:1], kept[1:65], kept[65:]
    if kept_hash.decode() != claim.body_hash:
        raise Problem(422, errors=[(IDEMPOTENCY_KEY, "was already used with another body")])
    if state == _RUNNING:
        raise Problem(
            409,
            detail="the first request with this Idempotency-Key is still running",
            headers={hdrs.RETRY_AFTER: "1"},
        )
    return AESGCM(claim.secret).decrypt(result[:NONCE_BYTES], result[NONCE_BYTES:], None)
