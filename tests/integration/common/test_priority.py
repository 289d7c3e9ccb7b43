"""High messages overtake others in a work queue, also after a rejection, and starve none."""

import asyncio

from libs.common.messaging.broker import HIGH, Broker, Message, message
from libs.common.messaging.consumer import Ack, Consumer, Disposition, Retry
from tests.support.brokers import Vhost
from tests.support.consumers import depth
from tests.support.eventually import becomes

QUEUE = "alerts.test"


async def queued(broker: Broker, *priorities: int | None) -> None:
    for each in priorities:
        await broker.publish("alerts", QUEUE, message("test", {}, priority=each))
    await becomes(lambda: depth(broker, QUEUE), len(priorities))


async def taken(broker: Broker, count: int, *, reject: bool = False) -> str:
    """Take so many messages one after another; `H` stands for a high one."""
    found: list[Message] = []
    done = asyncio.Event()

    async def handle(one: Message) -> Disposition:
        found.append(one)
        if len(found) == count:
            done.set()
        return Retry("again") if reject else Ack()

    async with asyncio.timeout(30), Consumer(broker, QUEUE, handle, prefetch=1):
        await done.wait()
    return "".join("H" if one.priority == HIGH else "." for one in found[:count])


async def test_of_both_priorities_two_high_ones_and_one_other_are_handed_out(
    broker: Broker,
) -> None:
    await queued(broker, *[None] * 6, *[HIGH] * 6)
    assert await taken(broker, 12) == "HH.HH.HH...."


async def test_a_rejected_message_comes_back_with_its_priority(
    broker: Broker, vhost: Vhost
) -> None:
    vhost.set_retry(r"\.retry$", 1)
    await queued(broker, HIGH)
    assert await taken(broker, 1, reject=True) == "H"
    await broker.publish("alerts", QUEUE, message("test", {}))
    await becomes(lambda: depth(broker, QUEUE), 2)
    assert await taken(broker, 2) == "H."
