import sys

from libs.common.cache import LocalCache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_expired_entry_is_not_read_and_goes_at_the_purge() -> None:
    clock = Clock()
    cache = LocalCache(10, clock)
    cache.set("a", b"1", ttl=5)
    cache.set("b", b"2", ttl=50)
    clock.now = 6
    assert (cache.get("a"), cache.get("b")) == (None, b"2")
    assert (cache.purge(), len(cache)) == (1, 1)


def test_a_full_cache_drops_its_oldest_entry() -> None:
    cache = LocalCache(2)
    cache.set("a", b"1", ttl=5)
    cache.set("b", b"2", ttl=5)
    cache.set("a", b"3", ttl=5)
    cache.set("c", b"4", ttl=5)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"3", None, b"4")


def test_bookkeeping_stays_under_1_mb_per_10_000_entries() -> None:
    cache = LocalCache(10_000)
    for number in range(20_000):
        cache.set(f"key-{number}", b"value", ttl=60)
    bookkeeping = sum(
        sys.getsizeof(entry) + sys.getsizeof(entry[0]) for entry in cache._entries.values()
    )
    assert len(cache) == 10_000
    assert bookkeeping < 1_000_000
