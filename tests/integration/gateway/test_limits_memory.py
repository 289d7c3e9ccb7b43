"""P7 at the limits: a flood of addresses, with Redis and without, beside one that stays exact."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from libs.common.database.redis_pipeline import RedisPipeline
from services.gateway.door.limits import SHARED_KEYS, Limiter, Window
from tests.support.pipelines import pipeline

pytestmark = pytest.mark.promise("P7")

MAX_KEYS = 500
ADDRESSES = 5_000
WINDOWS = (Window("minute", 3, 43_200), Window("hour", 5, 86_400))


@pytest.fixture
async def pipe(redis_url: str) -> AsyncIterator[RedisPipeline]:
    async with pipeline(redis_url) as pipe:
        yield pipe


async def admitted(limiter: Limiter, keys: Sequence[str]) -> int:
    decisions = await asyncio.gather(*(limiter.decide("api", key, WINDOWS) for key in keys))
    return sum(decision.admitted for decision in decisions)


@pytest.mark.quick
@pytest.mark.parametrize("redis_there", [True, False])
async def test_a_flood_of_addresses_stays_within_the_bound(
    pipe: RedisPipeline, *, redis_there: bool
) -> None:
    limiter = Limiter(
        pipe if redis_there else RedisPipeline("redis://127.0.0.1:1", ()), max_keys=MAX_KEYS
    )
    for start in range(0, ADDRESSES, 100):
        passed = await admitted(limiter, [f"flood:{n}" for n in range(start, start + 100)])
        assert passed == 100 or not redis_there  # with Redis each address has its own quota
    assert len(limiter._here) <= len(WINDOWS) * (MAX_KEYS + SHARED_KEYS)


async def test_redis_counts_exactly_beyond_the_process_s_own_table(pipe: RedisPipeline) -> None:
    limiter = Limiter(pipe, max_keys=MAX_KEYS)
    await admitted(limiter, [f"filling:{n}" for n in range(MAX_KEYS)])
    assert await admitted(limiter, ["late"] * 50) == 3


async def test_clients_beyond_the_table_get_no_second_quota_when_redis_fails(
    pipe: RedisPipeline,
) -> None:
    limiter = Limiter(pipe, max_keys=MAX_KEYS)
    await admitted(limiter, [f"filler:{n}" for n in range(MAX_KEYS)])
    assert await admitted(limiter, ["unlucky"] * 50) == 3
    limiter._redis = RedisPipeline("redis://127.0.0.1:1", ())
    assert await admitted(limiter, ["unlucky"] * 50) == 0
