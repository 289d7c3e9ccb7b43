"""taskiq with taskiq-aio-pika: a quorum queue, acknowledged after the work."""

import asyncio
import os
import sys

import aiohttp
from taskiq import TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker

from bench.peers import PREFETCH, TEXT

broker = AioPikaBroker(os.environ["AMQP_URL"], qos=PREFETCH)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def begin(state: TaskiqState) -> None:
    state.session = aiohttp.ClientSession(raise_for_status=True)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def end(state: TaskiqState) -> None:
    await state.session.close()


@broker.task(task_name="post")
async def post(text: str) -> None:
    async with broker.state.session.post(os.environ["SINK_URL"], json={"text": text}) as answer:
        await answer.read()


async def send(count: int) -> None:
    await broker.startup()
    for first in range(0, count, PREFETCH):
        await asyncio.gather(*(post.kiq(TEXT) for _ in range(first, min(first + PREFETCH, count))))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[2])))
