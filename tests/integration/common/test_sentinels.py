"""Redis, alone and behind Sentinels: the master of the moment is used."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from libs.common.cache import Cache
from libs.common.database import redis_server
from libs.common.database.redis_pipeline import RedisPipeline, RedisUnavailable
from libs.common.process.finding import Finding
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.pipelines import pipeline
from tests.support.ports import HOST, Ports
from tests.support.replicas import MASTER, Sentinels, black_hole, running_sentinels


@pytest.fixture
def sentinels(private_folder: Path, tmp_path: Path, ports: Ports) -> Iterator[Sentinels]:
    with running_sentinels(private_folder / tmp_path.name, ports.take) as started:
        yield started


def problems(redis: Sentinels) -> list[str]:
    return [each["found"] for each in looked_at(redis) if each["status"] == "wrong"]


def looked_at(redis: Sentinels) -> list[Finding]:
    return list(redis_server.findings(redis.url))


async def stored(redis: RedisPipeline) -> bool:
    with suppress(RedisUnavailable):
        return bool(await redis.command("SET", "a", "stored"))
    return False


async def test_the_master_is_found_behind_sentinels_that_do_not_answer_and_after_a_failover(
    sentinels: Sentinels,
) -> None:
    with black_hole() as hole:
        sentinels.first = [hole, f"{HOST}:1"]
        async with pipeline(sentinels.url) as redis:
            await until(sentinels.in_step)
            sentinels.master.kill()
            await eventually(lambda: stored(redis), every=0.2)
            assert sentinels.promoted()
            assert await redis.command("GET", "a") == b"stored"


async def test_a_demoted_master_is_left(sentinels: Sentinels) -> None:
    """It keeps its connections, and answers READONLY."""
    async with pipeline(sentinels.url) as redis:
        await until(sentinels.in_step)
        sentinels.sentinels[0].command(f"SENTINEL FAILOVER {MASTER}")
        await until(sentinels.promoted)
        await eventually(lambda: stored(redis), every=0.2)


async def test_the_doctor_looks_at_each_sentinel_and_at_the_master(sentinels: Sentinels) -> None:
    await until(sentinels.in_step)
    (whole,) = looked_at(sentinels)
    assert whole["status"] == "ok"
    assert whole["found"] == f"answers at {HOST}:{sentinels.master.port}"
    sentinels.sentinels[0].stop()
    sentinels.replica.stop()
    (of_sentinel, of_replica) = problems(sentinels)
    assert f"the Sentinel at {HOST}:{sentinels.sentinels[0].port}" in of_sentinel
    assert "no replica" in of_replica


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
