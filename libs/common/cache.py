"""A small cache: Redis with TTL; while Redis is unavailable, a bounded one in the process."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from libs.common.database.redis_pipeline import RedisPipeline, RedisUnavailable
from libs.common.process.logs import log
from libs.common.process.metrics import SHARED

PURGE_SECONDS = 600.0
MAX_ENTRIES = 10_000

_READS = SHARED.counter("cache_reads_total")
_PURGED = SHARED.counter("cache_purged_total")
_ENTRIES = SHARED.gauge("cache_local_entries", "livesum")


class LocalCache:
    """Bounded: a purge removes expired entries; if full, the oldest is dropped.

    The overhead over a plain dict is one tuple and one float per entry, under 1 MB per 10,000.
    """

    def __init__(
        self, max_entries: int = MAX_ENTRIES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries: dict[str, tuple[float, bytes]] = {}
        self._max_entries = max_entries
        self._clock = clock

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > self._clock() else None

    def set(self, key: str, value: bytes, ttl: float) -> None:
        self._entries.pop(key, None)  # an overwritten key would keep its position
        if len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (self._clock() + ttl, value)

    def delete(self, key: str) -> None:
        self._entries.pop(key, None)

    def purge(self) -> int:
        """Remove expired entries; return how many."""
        now = self._clock()
        expired = [key for key, (expires_at, _) in self._entries.items() if expires_at <= now]
        for key in expired:
            del self._entries[key]
        return len(expired)


class Cache:
    """While Redis is unavailable, calls are served from this process and do not fail.

    Entries stored locally stay readable after Redis is back, until they expire.
    """

    def __init__(self, redis: RedisPipeline, prefix: str, max_entries: int = MAX_ENTRIES) -> None:
        self._redis = redis
        self._prefix = prefix
        self._local = LocalCache(max_entries)

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = None
        with suppress(RedisUnavailable):
            value = await self._redis.command("GET", self._prefix + key)
        value = value if value is not None else self._local.get(key)
        _READS.labels("miss" if value is None else "hit").inc()
        return value

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Store for `ttl` seconds (at least a millisecond)."""
        try:
            await self._redis.command("SET", self._prefix + key, value, "PX", _milliseconds(ttl))
        except RedisUnavailable:
            self._local.set(key, value, ttl)
        else:
            self._local.delete(key)

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        """Store unless the key exists; return whether it was stored. Atomic while Redis is up.

        Counts as a miss if it stores; otherwise the caller's next read counts as a hit.
        """
        added = await self._add(key, value, ttl)
        if added:
            _READS.labels("miss").inc()
        return added

    async def _add(self, key: str, value: bytes, ttl: float) -> bool:
        if self._local.get(key) is not None:
            return False
        lasts = ("PX", _milliseconds(ttl), "NX")
        with suppress(RedisUnavailable):
            return await self._redis.command("SET", self._prefix + key, value, *lasts) is not None
        if self._local.get(key) is not None:  # another task was first while Redis timed out
            return False
        self._local.set(key, value, ttl)
        return True

    async def delete(self, key: str) -> None:
        self._local.delete(key)
        with suppress(RedisUnavailable):
            await self._redis.command("DEL", self._prefix + key)

    def purge(self) -> int:
        """Remove expired entries of this process and return how many; Redis expires its own."""
        purged = self._local.purge()
        _PURGED.inc(purged)
        _ENTRIES.set(len(self._local))
        return purged

    async def purge_forever(self, seconds: float = PURGE_SECONDS) -> None:
        while True:
            await asyncio.sleep(seconds)
            log.info("cache.purged", purged=self.purge(), left=len(self._local))


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
