"""A small cache: Redis with TTL, and a bounded in-process fallback while Redis is unavailable."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, cast

import prometheus_client
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError

from libs.common.database.redis_server import RedisServer
from libs.common.process import certificates, logs

log = logs.get_logger(__name__)

PURGE_SECONDS = 600.0
MAX_ENTRIES = 10_000
TIMEOUT_SECONDS = 0.25
RETRY_SECONDS = 1.0
"""How long Redis is not used after an error, so that requests do not wait for it."""

_READS = prometheus_client.Counter("cache_reads_total", "Reads by answer (hit, miss).", ["answer"])
_PURGED = prometheus_client.Counter("cache_purged_total", "Expired entries removed by purges.")
_ENTRIES = prometheus_client.Gauge(
    "cache_local_entries", "Entries of the in-process fallback.", multiprocess_mode="livesum"
)


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
        self._entries.pop(key, None)  # an overwritten key would keep its place
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


class _HappyEyeballs(Connection):
    """Tries the addresses of a name in parallel; redis-py tries one after another."""

    def __init__(self, server: RedisServer, **options: Any) -> None:
        super().__init__(**options)
        self._server = server

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            self._socket, self.host = await self._server.connected()
        await super()._connect()  # type: ignore[no-untyped-call]

    def _connection_arguments(self) -> dict[str, Any]:
        arguments = dict(super()._connection_arguments())
        name = arguments.pop("host") if "ssl" in arguments else None
        return arguments | {
            "host": None,
            "port": None,
            "sock": self._socket,
            "server_hostname": name,
        }


class _HappyEyeballsTls(_HappyEyeballs, SSLConnection):
    def _connection_arguments(self) -> dict[str, Any]:
        # redis-py would keep the files of its first connection, and trust the machine's CAs too.
        options = self.ssl_context
        self.ssl_context.context = certificates.client_of(
            options.ca_certs, options.certfile, options.keyfile
        )
        return super()._connection_arguments()


class Cache:
    """While Redis is unavailable, calls are served from this process and do not fail.

    Entries stored locally stay readable after Redis is back, until they expire.
    """

    def __init__(self, redis: Redis, prefix: str, local: LocalCache) -> None:
        self._redis = redis
        self._prefix = prefix
        self._local = local
        self._retry_at = 0.0
        self.redis_unavailable = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, redis_url: str, *, prefix: str, max_entries: int = MAX_ENTRIES
    ) -> AsyncIterator[Self]:
        server = RedisServer(redis_url)
        options = {
            **server.options,
            "timeout": TIMEOUT_SECONDS,
            "socket_timeout": TIMEOUT_SECONDS,
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "retry": Retry(NoBackoff(), 0),  # redis-py's default waits for seconds
        }
        if "path" not in options:
            secure = "connection_class" in options
            options["connection_class"] = _HappyEyeballsTls if secure else _HappyEyeballs
            options["server"] = server
        pool = BlockingConnectionPool(max_connections=32, **options)
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
                self._answered()
            except (RedisError, OSError) as error:
                await self._failed(error)
        value = value if value is not None else self._local.get(key)
        _READS.labels("miss" if value is None else "hit").inc()
        return value

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Store for `ttl` seconds (a millisecond at least)."""
        if self._redis_usable():
            try:
                await self._redis.set(self._prefix + key, value, px=max(1, int(ttl * 1000)))
                self._answered()
            except (RedisError, OSError) as error:
                await self._failed(error)
            else:
                self._local.delete(key)
                return
        self._local.set(key, value, ttl)

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
        if self._redis_usable():
            try:
                added = await self._redis.set(
                    self._prefix + key, value, px=max(1, int(ttl * 1000)), nx=True
                )
                self._answered()
            except (RedisError, OSError) as error:
                await self._failed(error)
            else:
                return bool(added)
        if self._local.get(key) is not None:  # another task was first while Redis timed out
            return False
        self._local.set(key, value, ttl)
        return True

    async def delete(self, key: str) -> None:
        self._local.delete(key)
        if self._redis_usable():
            try:
                await self._redis.delete(self._prefix + key)
                self._answered()
            except (RedisError, OSError) as error:
                await self._failed(error)

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

    def _redis_usable(self) -> bool:
        return time.monotonic() >= self._retry_at

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, ReadOnlyError):  # demoted: another server is the master by now
            await self._redis.connection_pool.disconnect()
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self.redis_unavailable:
            self.redis_unavailable = True
            log.warning("cache.redis_unavailable", error=f"{type(error).__name__}: {error}")

    def _answered(self) -> None:
        if self.redis_unavailable:
            self.redis_unavailable = False
            log.info("cache.redis_connected")
