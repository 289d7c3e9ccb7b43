from prometheus_client import REGISTRY

from libs.common.cache import Cache
from libs.common.database.redis_pipeline import RedisPipeline
from tests.support.pipelines import pipeline


def reads() -> dict[str, float]:
    return {
        answer: REGISTRY.get_sample_value("cache_reads_total", {"answer": answer}) or 0
        for answer in ("hit", "miss")
    }


async def test_storing_a_missing_key_counts_as_a_miss(redis_url: str) -> None:
    before = reads()
    async with pipeline(redis_url) as redis:
        cache = Cache(redis, "test:")
        assert await cache.add("a", b"first", 60)
        assert not await cache.add("a", b"second", 60)
        assert await cache.get("a") == b"first"
        assert await cache.get("b") is None
    assert {answer: number - before[answer] for answer, number in reads().items()} == {
        "hit": 1,
        "miss": 2,
    }


async def test_what_is_stored_while_redis_is_away_is_read_until_redis_has_it(
    redis_url: str,
) -> None:
    async with pipeline(redis_url) as redis:
        cache = Cache(redis, "test:")
        cache._redis = RedisPipeline("redis://127.0.0.1:1")
        assert await cache.add("a", b"here", 60)
        assert not await cache.add("a", b"again", 60)
        await cache.set("b", b"here", 60)
        cache._redis = redis
        assert not await cache.add("a", b"there", 60)
        await cache.set("b", b"there", 60)
        assert [await cache.get(key) for key in "ab"] == [b"here", b"there"]
        assert await redis.command("PTTL", "test:b") > 50_000
        await cache.delete("b")
        assert await redis.command("EXISTS", "test:b") == 0
