"""A target's own rate: who may send when, and what becomes of an unused turn."""

import asyncio
import time
from typing import cast

from libs.common.messaging.consumer import Consumer
from services.alerts.rules.delivery import Kind
from services.alerts.targets.breaker import Admission, Breaker
from services.alerts.targets.throttle import Slots, Throttle

SPACING = 0.05
PER_MINUTE = 60 / SPACING


class Taking:
    """Stands in for the consumer."""

    def __init__(self) -> None:
        self.consuming = True
        self.paused = asyncio.Event()

    async def pause(self) -> None:
        self.consuming = False
        self.paused.set()

    async def resume(self, prefetch: int | None = None) -> None:  # noqa: ARG002
        self.consuming = True


def a_throttle(per_minute: float | None = PER_MINUTE) -> tuple[Throttle, Breaker]:
    breaker = Breaker("slack", fail_max=1, reset_timeout=60)
    throttle = Throttle(breaker, per_minute=per_minute)
    throttle.follow(0, 1)
    return throttle, breaker


async def admitted(throttle: Throttle) -> Admission:
    admission = await throttle.admit()
    assert admission is not None
    return admission


async def test_idle_time_allows_no_burst() -> None:
    throttle, _ = a_throttle()
    await admitted(throttle)
    await asyncio.sleep(5 * SPACING)
    start = time.monotonic()
    for _ in range(3):
        await admitted(throttle)
    assert time.monotonic() - start >= 2 * SPACING


async def test_a_rate_is_divided_among_the_replicas() -> None:
    throttle, _ = a_throttle()
    throttle.replicas = 3
    start = time.monotonic()
    for _ in range(3):
        await admitted(throttle)
    assert time.monotonic() - start >= 2 * 3 * SPACING


async def test_an_unused_turn_goes_to_the_next() -> None:
    throttle, breaker = a_throttle(
        1
    )  # a minute between two, so that the test would not end without it
    for _ in range(20):
        async with asyncio.timeout(30):
            admission = await admitted(throttle)
        breaker.record(admission)  # a duplicate: acknowledged unsent


async def test_an_opening_breaker_requeues_waiting_messages_and_uses_no_turn() -> None:
    throttle, breaker = a_throttle(1)
    consumer = Taking()
    running = asyncio.create_task(throttle.run(cast("Consumer", consumer)))
    await asyncio.sleep(0)
    first = await admitted(throttle)
    waiting = [asyncio.create_task(throttle.admit()) for _ in range(5)]
    await asyncio.sleep(0)
    first.kind = Kind.FAILED
    breaker.record(first)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*waiting) == [None] * 5
        await consumer.paused.wait()
    assert throttle._next_turn <= time.monotonic() + 60  # only the first one's
    running.cancel()
    await asyncio.wait([running])


async def test_a_stop_does_not_wait_for_a_turn() -> None:
    throttle, _ = a_throttle(1)
    consumer = Taking()
    running = asyncio.create_task(throttle.run(cast("Consumer", consumer)))
    await asyncio.sleep(0)
    await admitted(throttle)
    waiting = asyncio.create_task(throttle.admit())
    await asyncio.sleep(0)
    consumer.consuming = False
    async with asyncio.timeout(30):
        assert await waiting is None
    running.cancel()
    await asyncio.wait([running])


async def test_a_waiter_that_is_cancelled_leaves_no_slot_taken() -> None:
    slots = Slots(1)

    async def one() -> None:
        async with slots.taking_one():
            await asyncio.Event().wait()

    async with slots.taking_one():
        waits, gets = asyncio.create_task(one()), asyncio.create_task(one())
        await asyncio.sleep(0)
        waits.cancel()  # while it waits
        await asyncio.sleep(0)
    gets.cancel()  # after the slot was handed to it
    await asyncio.wait((waits, gets))
    assert not slots.taken


async def test_a_freed_slot_is_handed_to_the_urgent_first_and_else_by_order_of_arrival() -> None:
    slots, order = Slots(1), list[str]()

    async def one(name: str) -> None:
        async with slots.taking_one(urgent=name.startswith("urgent")):
            order.append(name)
            await asyncio.sleep(0)

    async with slots.taking_one():
        names = ("first", "second", "urgent first", "third", "urgent second")
        waiting = [asyncio.create_task(one(name)) for name in names]
        await asyncio.sleep(0)
        assert order == []
    # It is theirs before they run: who comes now, however urgent, is behind who it was handed to.
    assert slots.taken
    waiting.append(asyncio.create_task(one("urgent late")))
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    assert order == ["urgent first", "urgent second", "urgent late", "first", "second", "third"]
    assert not slots.taken


async def test_more_slots_are_handed_to_those_who_wait_and_fewer_to_nobody() -> None:
    slots, release = Slots(2), asyncio.Event()
    inside = list[int]()

    async def one(number: int) -> None:
        async with slots.taking_one():
            inside.append(number)
            await release.wait()

    async with slots.taking_one():
        async with slots.taking_one():
            waiting = [asyncio.create_task(one(number)) for number in range(4)]
            await asyncio.sleep(0)
            slots.resize(1)
        await asyncio.sleep(0)
        assert inside == [], "the slot that was freed is gone"
        slots.resize(4)
        await asyncio.sleep(0)
        assert inside == [0, 1, 2]
    await asyncio.sleep(0)
    assert inside == [0, 1, 2, 3]
    release.set()
    await asyncio.gather(*waiting)
    assert not slots.taken
