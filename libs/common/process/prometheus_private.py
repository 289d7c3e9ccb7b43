"""prometheus_client's values without the checks before each change, for what every request counts.

`Counter.inc` and `Histogram.observe` make five and ten calls; two and four of them change a value.
With several workers the values are in files, which makes no difference here.

NAMES lists every private name of prometheus_client that is used. A unit test fails if one moves.
"""

from bisect import bisect_left
from collections.abc import Callable
from functools import cache

from prometheus_client import Counter, Histogram

NAMES: dict[type, set[str]] = {
    Counter: {"_value"},
    Histogram: {"_buckets", "_sum", "_upper_bounds"},
}


def increment(counter: Counter) -> Callable[[float], None]:
    """Return `inc` of a counter that has its labels."""
    change: Callable[[float], None] = counter._value.inc  # noqa: SLF001
    return change


def increments(counter: Counter) -> Callable[..., Callable[[float], None]]:
    """Return a function that gives `inc` for label values: `labels` locks and checks.

    It keeps each, so the values must come from closed sets.
    """
    return cache(lambda *values: increment(counter.labels(*values)))


def observe(histogram: Histogram) -> Callable[[float], None]:
    """Return `observe` of a histogram that has its labels."""
    bounds, total = histogram._upper_bounds, histogram._sum.inc  # noqa: SLF001
    buckets = [bucket.inc for bucket in histogram._buckets]  # noqa: SLF001

    def observed(amount: float) -> None:
        total(amount)
        buckets[bisect_left(bounds, amount)](1)  # each bucket counts its own; a scrape adds them up

    return observed
