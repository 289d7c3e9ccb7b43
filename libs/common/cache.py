"""One small cache: Redis with TTL, and a bounded in-process fallback while Redis is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self, cast

import prometheus_client
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from libs.common import logs

log = logs.get_logger(__name__)

PURGE_SECONDS = 600.0
MAX_ENTRIES = 10_000
TIMEOUT_SECONDS = 0.25
RETRY_SECONDS = 1.0
"""How long Redis is left alone after it failed, so that no request waits for a dead one."""

_ANSWERS = prometheus_client.Counter(
    "cache_reads_total", "Reads by answer (hit, miss).", ["answer"]
)
_PURGED = prometheus_client.Counter("cache_purged_total", "Expired entries removed by purges.")
_ENTRIES = prometheus_client.Gauge(
    "cache_local_entries", "Entries of the in-process fallback.", multiprocess_mode="livesum"
)


class LocalCache:
    """Bounded; expired entries go at a purge, the oldest when it is full.

    Bookkeeping above a plain dict is one tuple and one float an entry, under 1 MB per 10,000.
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
        self._entries.pop(key, None)  # a dict keeps the place of a key that is overwritten
        if len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (self._clock() + ttl, value)

    def delete(self, key: str) -> None:
        self._entries.pop(key, None)

    def purge(self) -> int:
        """Remove what has expired; return how many."""
        now = self._clock()
        expired = [key for key, (expires_at, _) in self._entries.items() if expires_at <= now]
        for key in expired:
            del self._entries[key]
        return len(expired)


class Cache:
    """No call fails or waits long because Redis is away: it is then answered from this process.

    What was stored here meanwhile stays readable after Redis is back, until it expires.
    """

    def __init__(self, redis: Redis, prefix: str, local: LocalCache) -> None:
        self._redis = redis
        self._prefix = prefix
        self._local = local
        self._retry_at = 0.0
        self.redis_away = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, redis_url: str, *, prefix: str, max_entries: int = MAX_ENTRIES
    ) -> AsyncIterator[Self]:
        pool = BlockingConnectionPool.from_url(
            redis_url,
            max_connections=32,
            timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # redis-py's default waits for seconds
        )
        redis = Redis(connection_pool=pool)
        try:
            yield cls(redis, prefix, LocalCache(max_entries))
        finally:
            await redis.aclose()
            await pool.disconnect()

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = None
        if self._redis_usable():
            try:
                value = cast("bytes | None", await self._redis.get(self._prefix + key))
                self._back()
            except (RedisError, OSError) as error:
                self._away(error)
        value = value if value is not None else self._local.get(key)
        _ANSWERS.labels("miss" if value is None else "hit").inc()
        return value

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Store for `ttl` seconds (a millisecond at least)."""
        if self._redis_usable():
            try:
                await self._redis.set(self._prefix + key, value, px=max(1, int(ttl * 1000)))
                self._back()
            except (RedisError, OSError) as error:
                self._away(error)
            else:
                self._local.delete(key)
                return
        self._local.set(key, value, ttl)

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        """Store only where nothing is stored yet; say whether it was. Atomic while Redis is up.

        One that stores is a read that missed; one that does not is followed by the read that hits.
        """
        added = await self._add(key, value, ttl)
        if added:
            _ANSWERS.labels("miss").inc()
        return added

    async def _add(self, key: str, value: bytes, ttl: float) -> bool:
        if self._local.get(key) is not None:
            return False
        if self._redis_usable():
            try:
                added = await self._redis.set(
                    self._prefix + key, value, px=max(1, int(ttl * 1000)), nx=True
                )
                self._back()
            except (RedisError, OSError) as error:
                self._away(error)
            else:
                return bool(added)
        if self._local.get(key) is not None:  # another task came first while Redis timed out
            return False
        self._local.set(key, value, ttl)
        return True

    async def delete(self, key: str) -> None:
        self._local.delete(key)
        if self._redis_usable():
            try:
                await self._redis.delete(self._prefix + key)
                self._back()
            except (RedisError, OSError) as error:
                self._away(error)

    def purge(self) -> int:
        """Remove expired entries of this process (Redis expires its own); return how many."""
        purged = self._local.purge()
        _PURGED.inc(purged)
        _ENTRIES.set(len(self._local))
        return purged

    async def purge_forever(self, seconds: float = PURGE_SECONDS) -> None:
        while True:
            await asyncio.sleep(seconds)
            log.info("cache.purged", purged=self.purge(), left=len(self._local))

    def _redis_usable(self) -> bool:
        return time.monotonic() >= self._retry_at

    def _away(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self.redis_away:
            self.redis_away = True
            log.warning("cache.redis_away", error=type(error).__name__)

    def _back(self) -> None:
        if self.redis_away:
            self.redis_away = False
            log.info("cache.redis_back")
