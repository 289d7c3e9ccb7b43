"""procrastinate: one job per due step records it and publishes its mail, 50 at a time."""

import asyncio
import os

import aio_pika
import procrastinate
from psycopg_pool import AsyncConnectionPool

from bench.peers.celery_due import MAIL

DSN = os.environ["DATABASE_URL"]
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DSN))
tools: dict[str, object] = {}


@app.task
async def hand_over(step: str) -> None:
    async with tools["pool"].connection() as connection:  # type: ignore[attr-defined]
        await connection.execute(
            "UPDATE followups.followup_event SET status = 'handed_over', "
            "handed_over_at = clock_timestamp() WHERE id = %s AND status = 'scheduled'",
            (step,),
        )
    message = aio_pika.Message(MAIL.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await tools["exchange"].publish(message, "bench.peer")  # type: ignore[attr-defined]


async def main() -> None:
    async with (
        app.open_async(),
        AsyncConnectionPool(DSN, min_size=10, max_size=10) as pool,
        await aio_pika.connect(os.environ["AMQP_URL"]) as connection,
    ):
        channel = await connection.channel()
        await channel.declare_queue(
            "bench.peer", durable=True, arguments={"x-queue-type": "quorum"}
        )
        tools.update(pool=pool, exchange=channel.default_exchange)
        await app.schema_manager.apply_schema_async()
        async with pool.connection() as due:
            rows = await due.execute("SELECT id::text FROM followups.followup_event")
            steps = [row[0] for row in await rows.fetchall()]
        await hand_over.batch_defer_async(*({"step": step} for step in steps))
        await app.run_worker_async(concurrency=50)


if __name__ == "__main__":
    asyncio.run(main())
