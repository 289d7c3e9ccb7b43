"""The gateway's cache without Redis: the cost of an entry and of a purge."""

import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from bench.lab import Lab
from bench.part import Part, table
from libs.common.cache import MAX_ENTRIES, PURGE_SECONDS, LocalCache

VALUE = b"v" * 200
PURGES = 20


def run(_: Lab) -> Any:
    cache = LocalCache()
    plain: dict[str, bytes] = {}

    def fill_plain() -> None:
        for number in range(MAX_ENTRIES):
            plain[f"key-{number}"] = VALUE

    def fill_cache() -> None:
        for number in range(MAX_ENTRIES):
            cache.set(f"key-{number}", VALUE, 3600)

    above = _held(fill_cache) - _held(fill_plain)
    return {"above": above, "purges": [_purge_seconds() for _ in range(PURGES)]}


def _held(fill: Callable[[], None]) -> int:
    tracemalloc.start()
    fill()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


def _purge_seconds() -> float:
    """Time a purge of a full cache, half of it expired."""
    clock = [0.0]
    cache = LocalCache(clock=lambda: clock[0])
    for number in range(MAX_ENTRIES):
        cache.set(f"key-{number}", VALUE, 1 if number % 2 else 3600)
    clock[0] = 2.0
    start = time.process_time()
    if cache.purge() != MAX_ENTRIES // 2:
        raise RuntimeError("not all that expired was purged")
    return time.process_time() - start


def render(found: Any) -> str:
    seconds = statistics.median(found["purges"])
    rows = [
        (
            f"overhead of {MAX_ENTRIES:,} entries over a plain dict of them",
            f"{found['above'] / 2**20:.2f} MiB ({found['above'] / MAX_ENTRIES:.0f} B per entry)",
            "1 MB",
        ),
        (
            f"a purge of a full cache, half of it expired, every {PURGE_SECONDS / 60:.0f} minutes",
            f"{seconds * 1000:.1f} ms, {seconds / PURGE_SECONDS:.5%} of one core",
            "0.1 % CPU",
        ),
    ]
    return f"""\
### The cache without Redis

{table(("", "measured", "allowed"), rows)}"""


PART = Part("cache", run, render)
