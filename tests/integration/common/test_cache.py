from prometheus_client import REGISTRY

from libs.common.cache import Cache


def reads() -> dict[str, float]:
    return {
        answer: REGISTRY.get_sample_value("cache_reads_total", {"answer": answer}) or 0
        for answer in ("hit", "miss")
    }


async def test_what_is_stored_for_it_was_not_there_counts_as_a_miss(redis_url: str) -> None:
    before = reads()
    async with Cache.open(redis_url, prefix="test:") as cache:
        assert await cache.add("a", b"first", 60)
        assert not await cache.add("a", b"second", 60)
        assert await cache.get("a") == b"first"
        assert await cache.get("b") is None
    assert {answer: number - before[answer] for answer, number in reads().items()} == {
        "hit": 1,
        "miss": 2,
    }
