"""FastStream on RabbitMQ: a quorum queue, acknowledged after the work, aiohttp."""

import asyncio
import os
import sys

import aiohttp
import uvloop
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from bench.peers import PREFETCH, TEXT

queue = RabbitQueue("bench.faststream", queue_type=QueueType.QUORUM, durable=True)
broker = RabbitBroker(os.environ["AMQP_URL"], default_channel=Channel(prefetch_count=PREFETCH))


async def send(count: int) -> None:
    async with broker:
        await broker.declare_queue(queue)
        for first in range(0, count, PREFETCH):
            await asyncio.gather(
                *(
                    broker.publish({"text": TEXT}, queue, persist=True)
                    for _ in range(first, min(first + PREFETCH, count))
                )
            )


async def work() -> None:
    async with aiohttp.ClientSession(raise_for_status=True) as session:

        @broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)
        async def post(body: dict[str, str]) -> None:
            async with session.post(os.environ["SINK_URL"], json=body) as answer:
                await answer.read()

        await FastStream(broker).run()


if __name__ == "__main__":
    uvloop.run(send(int(sys.argv[2])) if sys.argv[1] == "send" else work())
