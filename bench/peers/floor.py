"""The raw floor: consume, POST, acknowledge; no claim, no ledger, no breaker, no retry.

AMQP_URL=… SINK_URL=… python bench/peers/floor.py send 5000 | work
"""

import asyncio
import json
import os
import sys

import aio_pika
import aiohttp
import uvloop

from bench.peers import PREFETCH, TEXT

QUEUE = "bench.floor"


async def send(count: int) -> None:
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        slots = asyncio.Semaphore(256)

        async def one() -> None:
            body = json.dumps({"text": TEXT}).encode()
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            async with slots:
                await channel.default_exchange.publish(message, QUEUE)

        await asyncio.gather(*(one() for _ in range(count)))


async def work() -> None:
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    async with connection, aiohttp.ClientSession() as session:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(QUEUE)

        async def handle(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            headers = {"Content-Type": "application/json"}
            async with session.post(
                os.environ["SINK_URL"], data=message.body, headers=headers
            ) as answer:
                await answer.read()
            await message.ack()

        await queue.consume(handle)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(send(int(sys.argv[2])) if sys.argv[1] == "send" else work())
