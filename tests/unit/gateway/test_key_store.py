"""Keys in Redis: only what a gateway signed is taken, and a newer copy stays."""

from collections.abc import Callable, Sequence
from typing import Any

from services.gateway.door.key_store import Kept, KeysInRedis

SECRET = "console-internal-key"
OLD, NEW = (Kept(epoch="e", version=version, keys=[]) for version in (1, 2))


class Redis:
    """Keeps one copy as the script does."""

    connected = True

    def __init__(self) -> None:
        self.version, self.signed = 0, b""

    async def evaluate(
        self, _: str, __: Sequence[str], given: Sequence[Any], read: Callable[[Any], None]
    ) -> None:
        version, signed, how = given
        if int(version) > self.version or how == "over":
            self.version, self.signed = int(version), signed
        read(self.signed)


def store(redis: Any, secret: str = SECRET) -> KeysInRedis:
    return KeysInRedis(redis, secret)


async def test_a_copy_is_read_as_it_was_kept_and_an_older_one_does_not_replace_it() -> None:
    redis = Redis()
    assert await store(redis).read() is None
    await store(redis).keep(NEW)
    await store(redis).keep(OLD)  # of a gateway that is slower
    assert await store(redis).read() == NEW


async def test_an_older_copy_that_was_put_back_is_written_over() -> None:
    redis = Redis()
    await store(redis).keep(OLD)
    redis.version = 2**53
    await store(redis).keep(NEW)
    assert await store(redis).read() == NEW
