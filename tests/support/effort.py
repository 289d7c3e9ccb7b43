"""The CPU that an input costs, compared with twice the input and with a loop of this machine (P17).

CPU time and not the clock: other processes of the machine take none of it. What remains of them
(a shared cache, a slower clock rate) slows the loop as well.
"""

import gc
import time
from collections.abc import Callable, Iterable, Sequence

MOST_SECONDS = 0.025
"""For one request, on a machine that runs the loop in its time: P17's 20 ms and what a busy machine
adds."""
LOOP_SECONDS = 0.0065
GROWTH = 2.6
"""Twice the input may cost so much: 2 and what measuring adds. A quadratic parser needs 4."""
SLACK_SECONDS = 0.002
"""Below it nothing is compared: a first call or a page fault costs as much."""
TIMES = 5
PATIENCE_SECONDS = 1.0
"""It is tried for longer while it is cheap: a host takes CPU time from its machines unseen."""

Cost = Callable[[int], float]
"""Returns the CPU seconds of an input of this size."""


def slowness() -> float:
    """Return how much longer than `LOOP_SECONDS` the loop takes here and now."""
    best = min(_cpu(_loop) for _ in range(3))
    return max(1.0, best / LOOP_SECONDS)


def _loop() -> None:
    text, found = "Łazienka 8 m² w maju, ", 0
    for number in range(15_000):
        part = text[number % 20 :] + str(number)
        found += part.lower().find("maj") + len(part.split())


def _cpu(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def of(make: Callable[[int], object], parse: Callable[..., object]) -> Cost:
    """Return what parsing costs, whether it accepts or refuses the input."""
    number = 0

    def cost(size: int) -> float:
        nonlocal number
        number += 1
        given = make(size - number % 8)  # never the same: much of what parses remembers its last
        gc.disable()
        start = time.process_time()
        try:
            parse(given)
        except Exception:  # noqa: BLE001, S110 - a refusal; what it raises has tests elsewhere
            pass
        finally:
            spent = time.process_time() - start
            gc.enable()
        return spent

    return cost


def judged(
    halves: Sequence[float], wholes: Sequence[float], slack: float = SLACK_SECONDS
) -> str | None:
    """Return what is wrong with the costs of half the input and of the whole; None: nothing is."""
    half, whole = min(halves), min(wholes)
    slow = slowness() if whole > MOST_SECONDS else 1.0
    if whole <= MOST_SECONDS * slow and whole <= GROWTH * half + slack * slow:
        return None
    return f"{half * 1e3:.1f} ms for half, {whole * 1e3:.1f} ms for all, machine x{slow:.1f}"


def goes_on(wholes: Sequence[float]) -> bool:
    """Return whether to try once more after these costs of the whole input."""
    return len(wholes) < TIMES or sum(wholes) < PATIENCE_SECONDS


def fault(cost: Cost, size: int) -> str | None:
    """Return what is wrong, unless one of a few tries shows that nothing is."""
    halves, wholes = list[float](), list[float]()
    said: str | None = None
    while goes_on(wholes):
        halves.append(cost(size // 2))
        wholes.append(cost(size))
        if (said := judged(halves, wholes)) is None:
            return None
    return said


def faults(costs: Iterable[tuple[str, Cost]], size: int) -> list[str]:
    """Return each fault with its name."""
    found = ((name, fault(cost, size)) for name, cost in costs)
    return [f"{name}: {what}" for name, what in found if what is not None]
