"""Idempotency-Key: the same request again gets the same answer, for 24 h.

While Redis is away each process remembers for itself. An alert is then still delivered once per
target, because its id comes from the key.

An answer of the chat repeats what a person wrote. So what is kept is sealed under the client's own
key, of which only a hash is kept: without it nobody can read the answer, and an erasure, which does
not reach here, leaves nothing of anybody's to be read.
"""

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass

from aiohttp import hdrs, web
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.common.cache import Cache
from libs.common.web import Problem
from services.gateway import metrics

HEADER = "Idempotency-Key"
KEPT_SECONDS = 24 * 3600.0
NONCE_BYTES = 12
RUNNING_SECONDS = 90.0
"""Longer than any answer takes; a process that dies on the way blocks its key no longer."""

_RUNNING, _DONE = b"r", b"d"
_SANE_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def key_of(request: web.Request) -> str | None:
    """:raises Problem: 422, the key is empty, over 255 characters or not printable ASCII."""
    key = request.headers.get(HEADER)
    if key is not None and not _SANE_KEY.fullmatch(key):
        raise Problem(422, errors=[(HEADER, "1 to 255 printable ASCII characters")])
    return key


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to carry out a request; or, with `result`, what came of it before."""

    place: str
    secret: bytes
    body_hash: str
    result: bytes | None

    def seal(self, result: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(self.secret).encrypt(nonce, result, None)


class Idempotency:
    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def claim(self, key: str, *, route: str, holder: str, body: bytes) -> Claim:
        """Claim a key of this route and holder (key holder or session).

        :raises Problem: 409 the first one is still running, 422 another body came with this key
        """
        known_to_client = json.dumps([route, holder, key]).encode()
        place = hashlib.sha256(b"place" + known_to_client).hexdigest()
        secret = hashlib.sha256(b"secret" + known_to_client).digest()
        body_hash = hmac.new(secret, body, hashlib.sha256).hexdigest()
        running = _RUNNING + body_hash.encode()
        if await self._cache.add(place, running, RUNNING_SECONDS):
            metrics.IDEMPOTENT.labels("first").inc()
            return Claim(place, secret, body_hash, None)
        kept = await self._cache.get(place) or running
        state, kept_hash, result = kept[:1], kept[1:65], kept[65:]
        if kept_hash.decode() != body_hash:
            metrics.IDEMPOTENT.labels("conflict").inc()
            raise Problem(422, errors=[(HEADER, "was used before with another body")])
        if state == _RUNNING:
            metrics.IDEMPOTENT.labels("running").inc()
            raise Problem(
                409,
                detail="the first request with this Idempotency-Key is still running",
                headers={hdrs.RETRY_AFTER: "1"},
            )
        metrics.IDEMPOTENT.labels("repeated").inc()
        opened = AESGCM(secret).decrypt(result[:NONCE_BYTES], result[NONCE_BYTES:], None)
        return Claim(place, secret, body_hash, opened)

    async def keep(self, claim: Claim, result: bytes) -> None:
        kept = _DONE + claim.body_hash.encode() + claim.seal(result)
        await self._cache.set(claim.place, kept, KEPT_SECONDS)

    async def give_back(self, claim: Claim) -> None:
        """Let the same key be tried again: the first one came to nothing, or nobody knows."""
        await self._cache.delete(claim.place)
