from prometheus_client import REGISTRY

from deploy.up.servers import Redis
from libs.common.cache import Cache
from tests.support.consumers import until
from tests.support.proxy import Proxy


def reads() -> dict[str, float]:
    return {
        answer: REGISTRY.get_sample_value("cache_reads_total", {"answer": answer}) or 0
        for answer in ("hit", "miss")
    }


async def test_storing_a_missing_key_counts_as_a_miss(redis_url: str) -> None:
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


async def test_a_redis_that_was_demoted_keeps_no_connection(
    redis_server: Redis, redis_url: str
) -> None:
    async with (
        Proxy(redis_server.port) as way,
        Cache.open(
            redis_url.replace(f":{redis_server.port}/", f":{way.port}/"), prefix="test:"
        ) as cache,
    ):
        await cache.set("a", b"before", 60)
        assert way.connections == 1
        redis_server.command("REPLICAOF 127.0.0.1 1")
        try:
            await cache.set("a", b"meanwhile", 60)
        finally:
            redis_server.command("REPLICAOF NO ONE")
        assert cache.redis_unavailable
        await until(lambda: way.connections == 0)
