"""procrastinate: PostgreSQL alone, 50 jobs at a time."""

import asyncio
import os
import sys

import aiohttp
import procrastinate

from bench.peers import TEXT

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"])
)
sessions: list[aiohttp.ClientSession] = []


@app.task
async def post(text: str) -> None:
    async with sessions[0].post(os.environ["SINK_URL"], json={"text": text}) as answer:
        await answer.read()


async def send(count: int) -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await post.batch_defer_async(*({"text": TEXT} for _ in range(count)))


async def work() -> None:
    async with app.open_async(), aiohttp.ClientSession(raise_for_status=True) as session:
        sessions.append(session)
        await app.run_worker_async(concurrency=50)


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[2])) if sys.argv[1] == "send" else work())
