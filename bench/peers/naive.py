"""The naive form of the alerts service: one aiohttp process without any safeguards.

HTTP accept, INSERT, confirmed publish, 202; consume, POST, UPDATE, ack: one statement per alert.
No limits, no key, no claim, no breaker, no retry.
"""

import asyncio
import json
import os
import uuid

import aio_pika
import aiohttp
import asyncpg
import uvloop
from aiohttp import web

from bench.peers import PREFETCH

QUEUE = "bench.naive"
TABLE = """
CREATE TABLE alert (
    id uuid PRIMARY KEY, payload jsonb NOT NULL, state text NOT NULL DEFAULT 'pending',
    accepted_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz)
"""
DONE = "UPDATE alert SET state = 'delivered', finished_at = now() WHERE id = $1"


async def main() -> None:
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], max_size=20)
    async with connection, pool, aiohttp.ClientSession(raise_for_status=True) as session:
        await pool.execute(TABLE)
        publishing, consuming = await connection.channel(), await connection.channel()
        await consuming.set_qos(prefetch_count=PREFETCH)
        queue = await consuming.declare_queue(
            QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )

        async def accept(request: web.Request) -> web.Response:
            alert, id_ = await request.json(), uuid.uuid4()
            payload = json.dumps(alert["payload"])
            await pool.execute("INSERT INTO alert (id, payload) VALUES ($1, $2)", id_, payload)
            body = json.dumps({"id": str(id_), "payload": alert["payload"]}).encode()
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await publishing.default_exchange.publish(message, QUEUE)
            return web.json_response({"id": str(id_)}, status=202)

        async def deliver(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            alert = json.loads(message.body)
            async with session.post(os.environ["SINK_URL"], json=alert["payload"]) as answer:
                await answer.read()
            await pool.execute(DONE, uuid.UUID(alert["id"]))
            await message.ack()

        await queue.consume(deliver)
        app = web.Application()
        app.router.add_post("/api/alerts", accept)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(os.environ["HTTP_PORT"])).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
