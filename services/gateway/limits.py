"""Rate limits: fixed windows aligned to the clock, exact in Redis, never absent without it (P8).

All windows of a request are decided by one Lua script in one round trip, so that any number of
processes together admit exactly the quota. Each process also remembers what it admitted itself in
the running windows. That memory decides while Redis is away; it refuses what needs no question; and
it is told to Redis with each question, so that a Redis that lost its memory learns it again.
docs/decisions/0004 says what is taken from aiohttp-ratelimiter and what is not.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, NamedTuple

import limits
from multidict import istr
from prometheus_client import Counter
from pydantic import AfterValidator

from services.gateway import metrics
from services.gateway.redis_pipe import Argument, RedisAway, RedisPipe

LONGEST_WINDOW = 24 * 3600
LARGEST_QUOTA = 1_000_000_000
MAX_KEYS = 50_000
SHARED_KEYS = 1024
SHARED = "shared:"
RATE_LIMIT, RATE_LIMIT_POLICY = istr("RateLimit"), istr("RateLimit-Policy")

COUNT = """
local time = redis.call('TIME')
local now = tonumber(time[1])
local admitted, counts, changes, ends = 1, {}, {}, 0
for i = 1, #ARGV, 4 do
  local seconds, quota = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local start, count = now - now % seconds, 0
  local kept = redis.call('HGET', KEYS[1], ARGV[i])
  if kept then
    local kept_start, kept_count = string.match(kept, '(%d+):(%d+)')
    if tonumber(kept_start) == start then count = tonumber(kept_count) end
  end
  -- What the asking process admitted in this window is known to have been admitted.
  if tonumber(ARGV[i + 2]) == start then count = math.max(count, tonumber(ARGV[i + 3])) end
  if count >= quota then admitted = 0 end
  counts[#counts + 1] = count
  changes[#changes + 1] = ARGV[i]
  changes[#changes + 1] = string.format('%d:%d', start, count + 1)
  ends = math.max(ends, start + seconds)
end
if admitted == 1 then
  redis.call('HSET', KEYS[1], unpack(changes))
  redis.call('EXPIREAT', KEYS[1], ends)
end
return {admitted, now, tonumber(time[2]), unpack(counts)}
"""


@dataclass(frozen=True)
class Window:
    name: str
    quota: int
    seconds: int

    @classmethod
    def parse(cls, name: str, text: str) -> "Window":
        """Read "30 per minute", "200/hour", "10 per 5 minutes".

        :raises ValueError: says what is wrong with the text
        """
        try:
            (item,) = limits.parse_many(text)  # it reads lists too
        except ValueError:
            raise ValueError(f'{text!r} is not a limit like "30 per minute"') from None
        seconds, quota = item.get_expiry(), item.amount
        if not (1 <= quota <= LARGEST_QUOTA and 1 <= seconds <= LONGEST_WINDOW):
            raise ValueError(f"{text!r} is not 1 or more requests per a day or less")
        return cls(name, quota, seconds)

    @cached_property
    def policy(self) -> str:
        """The window as RateLimit-Policy names it."""
        return f'"{self.name}";q={self.quota};w={self.seconds}'

    def __str__(self) -> str:
        for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
            many, rest = divmod(self.seconds, length)
            if rest == 0:
                return f"{self.quota} per {unit if many == 1 else f'{many} {unit}s'}"
        raise AssertionError  # a second divides everything


def _is_limit(text: str) -> str:
    Window.parse("limit", text)
    return text


Limit = Annotated[str, AfterValidator(_is_limit)]


class Use(NamedTuple):
    """How much of one window was used before the request that is decided."""

    window: Window
    used: int
    reset: int
    """Seconds, rounded up, until the window is over."""

    @property
    def exhausted(self) -> bool:
        return self.used >= self.window.quota


class Decision(NamedTuple):
    policy: str
    admitted: bool
    uses: tuple[Use, ...]

    @property
    def retry_after(self) -> int:
        return max((use.reset for use in self.uses if use.exhausted), default=0)

    def headers(self) -> dict[str, str]:
        """RateLimit and RateLimit-Policy as in draft-ietf-httpapi-ratelimit-headers-10."""
        # One item: the window that will bind first, or binds longest.
        if self.admitted:
            tightest = max(self.uses, key=_share)
        else:
            tightest = max((use for use in self.uses if use.exhausted), key=_reset)
        left = max(0, tightest.window.quota - tightest.used - (1 if self.admitted else 0))
        return {
            RATE_LIMIT_POLICY: ", ".join([use.window.policy for use in self.uses]),
            RATE_LIMIT: f'"{tightest.window.name}";r={left};t={tightest.reset}',
        }


def _share(use: Use) -> float:
    return use.used / use.window.quota


def _reset(use: Use) -> int:
    return use.reset


class LocalCounts:
    """What this process admitted in the running windows; bounded (P7).

    The windows of one length end together, so forgetting them is dropping one dict.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._tables: dict[int, tuple[int, dict[str, int]]] = {}

    def count(self, seconds: int, start: int, key: str) -> int:
        table_start, table = self._tables.get(seconds, (0, {}))
        return table.get(key, 0) if table_start == start else 0

    def add(self, seconds: int, start: int, key: str) -> None:
        """Count one, under the key's own name or where `place` says."""
        table_start, table = self._tables.get(seconds, (0, {}))
        if start > table_start:
            table = {}
            self._tables[seconds] = (start, table)
        elif start < table_start:
            return  # an answer that came after its window was over
        if key not in table and len(table) >= self._max_keys:
            key = _shared(key)
        table[key] = table.get(key, 0) + 1

    def place(self, seconds: int, start: int, key: str) -> str:
        """Return the key to count under: its own, or when the table is full one that many share."""
        table_start, table = self._tables.get(seconds, (0, {}))
        if table_start != start or key in table or len(table) < self._max_keys:
            return key
        return _shared(key)

    def forget_all_but(self, lengths: set[int]) -> None:
        self._tables = {s: table for s, table in self._tables.items() if s in lengths}

    def __len__(self) -> int:
        return sum(len(table) for _, table in self._tables.values())


def _shared(key: str) -> str:
    return f"{SHARED}{zlib.crc32(key.encode()) % SHARED_KEYS}"


class Limiter:
    def __init__(
        self,
        redis: RedisPipe,
        *,
        max_keys: int = MAX_KEYS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._here = LocalCounts(max_keys)
        self._clock = clock
        self._redis_ahead = 0.0
        """Redis' clock minus ours, as last seen: both count the same windows."""

    async def decide(self, policy: str, key: str, windows: Sequence[Window]) -> Decision:
        """Admit and count one request in all its windows, or in none."""
        now = self._now()
        counts = self._counts(windows, now, key)
        for window, count in zip(windows, counts, strict=True):
            if count >= window.quota:  # by this process alone: nobody needs to be asked
                return _decided(policy, windows, now, counts, "here")
        try:
            return await self._decide_in_redis(policy, key, windows, now, counts)
        except RedisAway:
            return self._decide_here(policy, key, windows)

    def forget_all_but(self, windows: Sequence[Window]) -> None:
        self._here.forget_all_but({window.seconds for window in windows})

    def report(self) -> None:
        metrics.LIMIT_KEYS.set(len(self._here))

    async def _decide_in_redis(
        self, policy: str, key: str, windows: Sequence[Window], now: int, known: Sequence[int]
    ) -> Decision:
        arguments: list[Argument] = []
        for window, count in zip(windows, known, strict=True):
            arguments += (window.seconds, window.quota, _start(now, window.seconds), count)
        answers: list[Decision] = []

        def read(answer: list[Any]) -> None:
            admitted, seconds, micros, *counts = answer
            self._redis_ahead = seconds + micros / 1e6 - self._clock()
            if admitted:
                self._add(windows, seconds, key)
            answers.append(_decided(policy, windows, seconds, counts, "redis"))

        await self._redis.evaluate(COUNT, f"ostoja:limit:{key}", arguments, read)
        return answers[0]

    def _decide_here(self, policy: str, key: str, windows: Sequence[Window]) -> Decision:
        now = self._now()
        counts = [
            self._here.count(seconds, start, self._here.place(seconds, start, key))
            for seconds, start in ((w.seconds, _start(now, w.seconds)) for w in windows)
        ]
        decision = _decided(policy, windows, now, counts, "here")
        if decision.admitted:
            self._add(windows, now, key)
        return decision

    def _now(self) -> int:
        return int(self._clock() + self._redis_ahead)

    def _counts(self, windows: Sequence[Window], now: int, key: str) -> list[int]:
        return [self._here.count(w.seconds, _start(now, w.seconds), key) for w in windows]

    def _add(self, windows: Sequence[Window], now: int, key: str) -> None:
        for window in windows:
            self._here.add(window.seconds, _start(now, window.seconds), key)


def _start(now: int, seconds: int) -> int:
    return now - now % seconds


def _decided(
    policy: str, windows: Sequence[Window], now: int, counts: Sequence[int], counted_in: str
) -> Decision:
    uses = tuple(
        [  # a list: a generator costs more than what it gives here
            Use(window, count, window.seconds - now % window.seconds)
            for window, count in zip(windows, counts, strict=True)
        ]
    )
    admitted = True
    for window, count, _ in uses:
        admitted = admitted and count < window.quota
    _counter(policy, "admitted" if admitted else "refused", counted_in).inc()
    return Decision(policy, admitted, uses)


@cache
def _counter(policy: str, outcome: str, counted_in: str) -> Counter:
    return metrics.LIMIT_DECISIONS.labels(policy, outcome, counted_in)
