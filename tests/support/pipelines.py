"""A connection to Redis, kept while a test uses it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.common.database.redis_pipeline import RedisPipeline
from libs.common.process import tasks
from tests.support.consumers import until


@asynccontextmanager
async def pipeline(url: str, *scripts: str) -> AsyncIterator[RedisPipeline]:
    pipe = RedisPipeline(url, scripts)
    running = asyncio.create_task(pipe.run())
    try:
        await until(lambda: pipe.connected)
        yield pipe
    finally:
        await tasks.end(running)
