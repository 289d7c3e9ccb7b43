"""A target's own rate: who may send when, and what a turn that was not used becomes."""

import asyncio
import time
from typing import cast

from libs.common.consume import Consumer
from services.alerts.alert import Kind
from services.alerts.breaker import Admission, Breaker
from services.alerts.valve import Valve

SPACING = 0.05
PER_MINUTE = 60 / SPACING


class Taking:
    """Stands where the consumer is."""

    def __init__(self) -> None:
        self.consuming = True
        self.paused = asyncio.Event()

    async def pause(self) -> None:
        self.consuming = False
        self.paused.set()

    async def resume(self, prefetch: int | None = None) -> None:  # noqa: ARG002
        self.consuming = True


def a_valve(per_minute: float | None = PER_MINUTE) -> tuple[Valve, Breaker]:
    breaker = Breaker("slack", fail_max=1, reset_timeout=60)
    return Valve(breaker, per_minute=per_minute), breaker


async def admitted(valve: Valve) -> Admission:
    admission = await valve.admit()
    assert admission is not None
    return admission


async def test_a_rate_spaces_what_is_sent_and_keeps_its_order() -> None:
    valve, _ = a_valve()
    order: list[int] = []
    start = time.monotonic()

    async def one(number: int) -> None:
        await admitted(valve)
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(10)))
    assert time.monotonic() - start >= 9 * SPACING
    assert order == list(range(10))


async def test_without_a_rate_nobody_waits_for_a_turn() -> None:
    valve, _ = a_valve(None)
    for _ in range(1000):
        task = asyncio.ensure_future(valve.admit())
        await asyncio.sleep(0)  # one step of the loop is all it takes
        assert task.done()


async def test_idle_time_is_not_saved_up_for_a_burst() -> None:
    valve, _ = a_valve()
    await admitted(valve)
    await asyncio.sleep(5 * SPACING)
    start = time.monotonic()
    for _ in range(3):
        await admitted(valve)
    assert time.monotonic() - start >= 2 * SPACING


async def test_a_rate_is_divided_among_the_replicas() -> None:
    valve, _ = a_valve()
    valve.replicas = 3
    start = time.monotonic()
    for _ in range(3):
        await admitted(valve)
    assert time.monotonic() - start >= 2 * 3 * SPACING


async def test_a_turn_in_which_nothing_was_sent_goes_to_the_next() -> None:
    valve, breaker = a_valve(1)  # a minute between two: without it the test would not end
    for _ in range(20):
        async with asyncio.timeout(30):
            admission = await admitted(valve)
        breaker.settle(admission)  # a twin: acknowledged unsent


async def test_an_opening_breaker_sends_those_that_wait_for_a_turn_back_and_uses_none() -> None:
    valve, breaker = a_valve(1)
    consumer = Taking()
    running = asyncio.create_task(valve.run(cast("Consumer", consumer)))
    await asyncio.sleep(0)
    first = await admitted(valve)
    waiting = [asyncio.create_task(valve.admit()) for _ in range(5)]
    await asyncio.sleep(0)
    first.kind = Kind.FAILED
    breaker.settle(first)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*waiting) == [None] * 5
        await consumer.paused.wait()
    assert valve._next_turn <= time.monotonic() + 60  # the first one's, and nobody else's
    running.cancel()
    await asyncio.wait([running])


async def test_a_stop_does_not_wait_for_a_turn() -> None:
    valve, _ = a_valve(1)
    consumer = Taking()
    running = asyncio.create_task(valve.run(cast("Consumer", consumer)))
    await asyncio.sleep(0)
    await admitted(valve)
    waiting = asyncio.create_task(valve.admit())
    await asyncio.sleep(0)
    consumer.consuming = False
    async with asyncio.timeout(30):
        assert await waiting is None
    running.cancel()
    await asyncio.wait([running])
