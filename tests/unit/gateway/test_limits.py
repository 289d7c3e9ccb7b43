import tomllib
from datetime import datetime
from pathlib import Path

import pytest

from libs.common.database.redis_pipeline import RedisPipeline
from services.gateway.door.limits import Limiter, LocalCounts, Schedule, Window

TABLES = tomllib.loads(Path(__file__).with_name("limits.toml").read_text(encoding="utf-8"))
MINUTE = Window("minute", 3, 60)
HOUR = Window("hour", 5, 3600)


class Clock:
    now = 7200.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    """Without Redis: its pipe is never run."""
    return Limiter(RedisPipeline("redis://127.0.0.1:1", ()), clock=clock, max_keys=10)


async def admitted(limiter: Limiter, key: str, *windows: Window, tries: int = 20) -> int:
    decisions = [await limiter.decide("api", key, windows) for _ in range(tries)]
    return sum(decision.admitted for decision in decisions)


@pytest.mark.parametrize(("text", "read"), TABLES["read"].items())
def test_a_limit_is_read_and_written_back(text: str, read: list[int]) -> None:
    window = Window.parse("x", text)
    assert [window.quota, window.seconds] == read
    assert Window.parse("x", str(window)) == window


@pytest.mark.parametrize("text", TABLES["malformed"])
def test_a_malformed_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*' is not"):
        Schedule.parse("x", text)


async def test_windows_are_aligned_to_the_clock(limiter: Limiter, clock: Clock) -> None:
    clock.now = 7200 + 59.9
    assert await admitted(limiter, "a", MINUTE) == 3
    clock.now = 7200 + 60.0
    assert await admitted(limiter, "a", MINUTE) == 3


async def test_a_request_refused_by_one_window_counts_in_none(
    limiter: Limiter, clock: Clock
) -> None:
    assert await admitted(limiter, "a", MINUTE, HOUR) == 3
    clock.now += 60
    assert await admitted(limiter, "a", MINUTE, HOUR) == 2
    clock.now += 60
    assert await admitted(limiter, "a", MINUTE, HOUR) == 0


async def test_when_memory_is_full_new_clients_share_buckets(limiter: Limiter) -> None:
    for number in range(10):
        await limiter.decide("api", f"known-{number}", [MINUTE])
    newcomers = [await limiter.decide("api", f"new-{n}", [MINUTE]) for n in range(20_000)]
    assert 0 < sum(decision.admitted for decision in newcomers) <= 3 * 1024
    assert await admitted(limiter, "known-0", MINUTE) == 2


def test_a_window_that_is_over_is_forgotten_at_once() -> None:
    counts = LocalCounts()
    for number in range(1000):
        counts.add(60, 0, f"{number}")
    counts.add(60, 60, "next")
    assert len(counts) == 1
    counts.add(60, 0, "late")
    assert len(counts) == 1


PEAK = "30 per minute; 100 per minute mon-fri 08:00-18:00; 5 per minute sat-sun 22:00-06:00"


@pytest.mark.parametrize(("at", "quota"), TABLES["week"].items())
def test_each_hour_of_the_week_has_its_limit(at: str, quota: int) -> None:
    assert Schedule.parse("chat", PEAK).at(datetime.fromisoformat(at)).quota == quota


async def test_what_is_given_back_without_redis_is_free_again(limiter: Limiter) -> None:
    charges = [await limiter.charge("b", "b", HOUR, f"{network}") for network in range(8)]
    assert [charge.admitted for charge in charges] == [True] * 5 + [False] * 3
    await limiter.refund(charges[2])
    assert not (await limiter.charge("b", "b", HOUR, "0")).admitted, "its network has its part"
    again = [await limiter.charge("b", "b", HOUR, f"{network}") for network in (2, 5)]
    assert [charge.admitted for charge in again] == [True, False]


async def test_a_window_that_is_over_gets_nothing_back(limiter: Limiter, clock: Clock) -> None:
    charge = await limiter.charge("b", "b", HOUR, "n")
    clock.now += 3600
    assert (await limiter.charge("b", "b", HOUR, "n")).admitted
    await limiter.refund(charge)
    assert not (await limiter.charge("b", "b", HOUR, "n")).admitted
