"""Rate limits over fixed windows aligned to the clock. The configured windows are in settings.py.

Redis counts exactly; while it is down, each process enforces the limit by its own count (P8).

One script (count.lua) decides all windows of a request in one round trip, so that any number of
processes together admit exactly the quota. Each process also counts what it admitted in the current
windows. If this process alone has admitted the whole quota, it rejects without calling Redis. The
counts are sent with each call and kept for each process, so that a Redis that lost some learns them
again.
docs/decisions/0004 says what is taken from aiohttp-ratelimiter and what is not, docs/decisions/0030
why a failover admits one quota more at most.
"""

import asyncio
import re
import secrets
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, time
from functools import cache, cached_property
from time import time as clock_time
from typing import Annotated, Any, NamedTuple

from multidict import istr
from pydantic import AfterValidator

from libs.common.database.redis_pipeline import Argument, RedisPipeline, RedisUnavailable
from libs.domain import limits
from services.gateway import metrics

MAX_KEYS = 50_000
SHARED_KEYS = 1024
WIDE = 16
"""An IPv6 /48 gets this many times a client's quota: one site has 65,536 networks."""
PART = 20
"""One network gets at most this fraction (1/PART) of a budget that all share."""
SHARED = "shared:"
RATE_LIMIT, RATE_LIMIT_POLICY = istr("RateLimit"), istr("RateLimit-Policy")


@dataclass(frozen=True)
class Window:
    name: str
    quota: int
    seconds: int

    @classmethod
    def parse(cls, name: str, text: str) -> "Window":
        """:raises ValueError: says what is wrong with the text"""
        return cls(name, *limits.parse(text))

    @cached_property
    def policy(self) -> str:
        """The window in the format of RateLimit-Policy."""
        return f'"{self.name}";q={self.quota};w={self.seconds}'

    @cached_property
    def widened(self) -> "Window":
        return Window(f"{self.name}-wide", self.quota * WIDE, self.seconds)

    @cached_property
    def part(self) -> "Window":
        return Window(f"{self.name}-part", max(1, self.quota // PART), self.seconds)

    def __str__(self) -> str:
        for unit, length in limits.UNITS.items():
            many, rest = divmod(self.seconds, length)
            if rest == 0:
                return f"{self.quota} per {unit if many == 1 else f'{many} {unit}s'}"
        raise AssertionError  # a second divides everything


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PERIOD = re.compile(
    r"(?P<limit>.+?) (?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))? "
    r"(?P<start>[0-2]\d:[0-5]\d)-(?P<end>[0-2]\d:[0-5]\d)"
)


class Period(NamedTuple):
    days: frozenset[int]
    start: time
    end: time
    window: Window

    def holds(self, at: datetime) -> bool:
        """Return whether it applies; one that ends before it starts spans midnight."""
        if self.start < self.end:
            return at.weekday() in self.days and self.start <= at.time() < self.end
        if at.time() >= self.start:
            return at.weekday() in self.days
        return (at.weekday() - 1) % 7 in self.days and at.time() < self.end


@dataclass(frozen=True)
class Schedule:
    """A limit, with others for hours of the week."""

    text: str
    usual: Window
    periods: tuple[Period, ...]

    @classmethod
    def parse(cls, name: str, text: str) -> "Schedule":
        """Read "30 per minute; 100 per minute mon-fri 08:00-18:00".

        :raises ValueError: says what is wrong with the text
        """
        usual, *periods = (part.strip() for part in text.split(";"))
        read = [_period(name, each) for each in periods]
        return cls(text, Window.parse(name, usual), tuple(read))

    def at(self, local: datetime) -> Window:
        """Return the window in force; of overlapping periods, the last."""
        held = [each.window for each in self.periods if each.holds(local)]
        return held[-1] if held else self.usual

    @property
    def windows(self) -> list[Window]:
        return [self.usual, *(each.window for each in self.periods)]

    def __str__(self) -> str:
        return self.text if self.periods else str(self.usual)


def _period(name: str, text: str) -> Period:
    found = _PERIOD.fullmatch(text)
    try:
        if found is None:
            raise ValueError  # noqa: TRY301 - as any other part that cannot be read
        first, last = DAYS.index(found["first"]), DAYS.index(found["last"] or found["first"])
        start, end = time.fromisoformat(found["start"]), time.fromisoformat(found["end"])
    except ValueError:
        raise ValueError(
            f'{text!r} is not a limit like "100 per minute mon-fri 08:00-18:00"'
        ) from None
    days = frozenset((first + day) % 7 for day in range((last - first) % 7 + 1))
    return Period(days, start, end, Window.parse(name, found["limit"]))


def merged(windows: Iterable[Window]) -> tuple[Window, ...]:
    """Return the smallest window of each length: two would count each request twice."""
    found: dict[int, Window] = {}
    for window in windows:
        same = found.setdefault(window.seconds, window)
        if window.quota < same.quota:
            found[window.seconds] = window
    return tuple(found.values())


def _is_limit(text: str) -> str:
    Schedule.parse("limit", text)
    return text


Limit = Annotated[str, AfterValidator(_is_limit)]


Bucket = tuple[Window, str]
"""A window, and the key under which it is counted."""


class Use(NamedTuple):
    """How much of a window was used before the current request."""

    window: Window
    used: int
    reset: int
    """Seconds until the window ends, rounded up."""

    @property
    def exhausted(self) -> bool:
        return self.used >= self.window.quota


def charge_of(key: str, window: Window, network: str) -> list[Bucket]:
    """Return a window that all share, and its network's part of it."""
    return [(window, key), (window.part, f"{key} of {network}")]


class Decision(NamedTuple):
    policy: str
    admitted: bool
    uses: tuple[Use, ...]
    buckets: Sequence[Bucket] = ()
    at: int = 0
    """When it was counted, by Redis' clock."""
    charge: "Decision | None" = None
    """About its charge, if that was decided with it. Its first use is that of the whole window."""

    @property
    def retry_after(self) -> int:
        return max((use.reset for use in self.uses if use.exhausted), default=0)

    def headers(self) -> dict[str, str]:
        """RateLimit and RateLimit-Policy as in draft-ietf-httpapi-ratelimit-headers-10."""
        # One item: the window that will be exhausted first, or stays exhausted longest.
        if self.admitted:
            tightest = self.uses[0]
            for use in self.uses:
                if use.used * tightest.window.quota > tightest.used * use.window.quota:
                    tightest = use
        else:
            tightest = max((use for use in self.uses if use.exhausted), key=lambda use: use.reset)
        left = max(0, tightest.window.quota - tightest.used - (1 if self.admitted else 0))
        return {
            RATE_LIMIT_POLICY: ", ".join([use.window.policy for use in self.uses]),
            RATE_LIMIT: f'"{tightest.window.name}";r={left};t={tightest.reset}',
        }


class LocalCounts:
    """The requests that this process admitted in the current windows; bounded (P7).

    Windows of one length end together, so one dict is dropped to forget them.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._tables: dict[int, tuple[int, dict[str, int]]] = {}

    def count(self, seconds: int, start: int, key: str) -> int:
        found = self._tables.get(seconds)
        return found[1].get(key, 0) if found is not None and found[0] == start else 0

    def add(self, seconds: int, start: int, key: str) -> None:
        """Count a request under the key that `place` returns."""
        table_start, table = self._tables.get(seconds, (0, {}))
        if start > table_start:
            table = {}
            self._tables[seconds] = (start, table)
        elif start < table_start:
            return  # a reply that arrived after its window ended
        key = self.place(seconds, start, key)
        table[key] = table.get(key, 0) + 1

    def take_back(self, seconds: int, start: int, key: str) -> None:
        """Undo an `add`, unless its window is over."""
        table_start, table = self._tables.get(seconds, (0, {}))
        key = self.place(seconds, start, key)
        if table_start == start and table.get(key, 0) > 0:
            table[key] -= 1

    def place(self, seconds: int, start: int, key: str) -> str:
        """Return the key to count under: its own, or a shared one if the table is full."""
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
        redis: RedisPipeline,
        *,
        max_keys: int = MAX_KEYS,
        clock: Callable[[], float] = clock_time,
    ) -> None:
        self._redis = redis
        self._here = LocalCounts(max_keys)
        self._process = secrets.token_hex(4)
        self._clock = clock
        self._redis_ahead = 0.0
        """Redis' clock minus ours when last seen, so that both count the same windows."""

    async def decide(
        self,
        policy: str,
        key: str,
        windows: Sequence[Window],
        wide_key: str | None = None,
        charge: Sequence[Bucket] = (),
    ) -> Decision:
        """Admit and count one request in all its windows, or in none.

        :param wide_key: of a group of clients, which has WIDE times the quota
        :param charge: decided with it if it is admitted, Redis answers and there may be room
        """
        buckets = [(window, key) for window in windows]
        if wide_key is not None:
            buckets += [(window.widened, wide_key) for window in windows]
        return await self._decide(policy, buckets, charge)

    async def charge(self, policy: str, key: str, window: Window, network: str) -> Decision:
        return await self._decide(policy, charge_of(key, window, network))

    async def refund(self, charge: Decision) -> None:
        """Take back what an admitted request was counted; lost, it counts until its window ends.

        Here first: a call that is sent after this one must not restore it in Redis.
        """
        hashes, arguments = [], [self._process]
        for window, key in charge.buckets:
            start = charge.at - charge.at % window.seconds
            self._here.take_back(window.seconds, start, key)
            hashes.append(_hash(key))
            arguments += [str(window.seconds), str(start)]
        with suppress(RedisUnavailable):
            await self._redis.evaluate("refund", hashes, arguments, lambda _: None)

    async def _decide(
        self, policy: str, buckets: Sequence[Bucket], charge: Sequence[Bucket] = ()
    ) -> Decision:
        now, first = self._now(), len(buckets)
        asked = [*buckets, *charge]
        known = self._counts(asked, now)
        for at, ((window, _), count) in enumerate(zip(asked, known, strict=True)):
            if count >= window.quota:  # by this process alone
                if at < first:
                    return self._decided(policy, buckets, now, known[:first], "here")
                del asked[first:]
                break
        arguments: list[Argument] = [self._process, first]
        hashes: list[str] = []
        previous = None
        for (window, key), count in zip(asked, known, strict=False):
            if key != previous:  # the windows of a key follow each other
                previous = key
                hashes.append(_hash(key))
            seconds = window.seconds
            arguments += (len(hashes), seconds, window.quota, now - now % seconds, count)
        answers: list[Decision] = []

        def read(answer: list[Any]) -> None:
            seconds, micros, *counts = answer
            self._redis_ahead = seconds + micros / 1e6 - self._clock()
            made = None
            if len(counts) > first:
                made = self._decided(charge[0][1], charge, seconds, counts[first:], "redis")
            counts = counts[:first]
            answers.append(self._decided(policy, buckets, seconds, counts, "redis", made))

        try:
            await self._redis.evaluate("count", hashes, arguments, read)
        except RedisUnavailable:
            return self._decide_here(policy, buckets)
        return answers[0]

    def forget_all_but(self, windows: Sequence[Window]) -> None:
        self._here.forget_all_but({window.seconds for window in windows})

    def report(self) -> None:
        metrics.LIMIT_LOCAL_KEYS.set(len(self._here))

    def _decide_here(self, policy: str, buckets: Sequence[Bucket]) -> Decision:
        now = self._now()
        counted = [(w, self._here.place(w.seconds, now - now % w.seconds, k)) for w, k in buckets]
        counts = self._counts(counted, now)
        return self._decided(policy, buckets, now, counts, "here")

    def _now(self) -> int:
        return int(self._clock() + self._redis_ahead)

    def _counts(self, buckets: Sequence[Bucket], now: int) -> list[int]:
        count = self._here.count
        return [count(w.seconds, now - now % w.seconds, key) for w, key in buckets]

    def _decided(
        self,
        policy: str,
        buckets: Sequence[Bucket],
        now: int,
        counts: Sequence[int],
        counted_in: str,
        charge: Decision | None = None,
    ) -> Decision:
        """Count it in this process too if it is admitted."""
        uses = tuple(
            Use(window, count, window.seconds - now % window.seconds)
            for (window, _), count in zip(buckets, counts, strict=True)
        )
        admitted = True
        for window, count, _ in uses:
            admitted = admitted and count < window.quota
        if admitted:
            for window, key in buckets:
                self._here.add(window.seconds, now - now % window.seconds, key)
        _count(policy, "admitted" if admitted else "refused", counted_in).inc()
        return Decision(policy, admitted, uses, buckets, now, charge)


def _hash(key: str) -> str:
    return f"ostoja:admitted:{key}"


_count = cache(metrics.LIMIT_DECISIONS.labels)  # of closed sets


class Waits:
    """Requests with a key that are over the limit wait for the next window, within bounds."""

    def __init__(self, limiter: Limiter, seconds: float, most: int) -> None:
        self._limiter = limiter
        self._seconds = seconds
        self._most = most
        self._waiting = 0

    async def decide(self, policy: str, key: str, windows: Sequence[Window]) -> Decision:
        """Decide as the limiter does, again after a wait if necessary."""
        decision = await self._limiter.decide(policy, key, windows)
        if decision.admitted or decision.retry_after > self._seconds or self._waiting >= self._most:
            return decision
        self._waiting += 1
        metrics.LIMIT_WAITING.set(self._waiting)
        try:
            await asyncio.sleep(decision.retry_after)
        finally:
            self._waiting -= 1
            metrics.LIMIT_WAITING.set(self._waiting)
        return await self._limiter.decide(policy, key, windows)

    def shown(self) -> dict[str, Any]:
        return {"seconds": self._seconds, "most": self._most}
