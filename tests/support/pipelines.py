"""A connection to Redis, kept while a test uses it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from libs.common.database.redis_pipeline import RedisPipeline
from libs.common.process import tasks
from services.gateway import door
from tests.support.consumers import until


@asynccontextmanager
async def pipeline(url: str) -> AsyncIterator[RedisPipeline]:
    pipe = RedisPipeline(url, Path(door.__file__).parent.glob("*.lua"))
    running = asyncio.create_task(pipe.run())
    try:
        await until(lambda: pipe.connected)
        yield pipe
    finally:
        await tasks.end(running)
