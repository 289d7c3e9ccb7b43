"""PgQueuer: PostgreSQL alone, 50 jobs at a time."""

import json
import os
import sys

import aiohttp
import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

from bench.peers import TEXT


async def send(count: int) -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    body = json.dumps({"text": TEXT}).encode()
    await queries.enqueue(["post"] * count, [body] * count, [0] * count)
    await connection.close()


async def work() -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    queuer = PgQueuer(AsyncpgDriver(connection))
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(raise_for_status=True) as session:

        @queuer.entrypoint("post")
        async def post(job: Job) -> None:
            async with session.post(
                os.environ["SINK_URL"], data=job.payload, headers=headers
            ) as answer:
                await answer.read()

        await queuer.run(batch_size=50)


if __name__ == "__main__":
    uvloop.run(send(int(sys.argv[2])) if sys.argv[1] == "send" else work())
