"""What a chat does, in its plainest form: one INSERT of the message, a constant reply."""

import asyncio
import os

import aiopg
import uvloop
from aiohttp import web

TABLE = """
CREATE TABLE IF NOT EXISTS plain_message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, session_id text NOT NULL,
    body text NOT NULL, created_at timestamptz NOT NULL DEFAULT now())
"""
INSERT = "INSERT INTO plain_message (session_id, body) VALUES (%s, %s)"
POOL = 10  # as followups'


async def main() -> None:
    async with aiopg.create_pool(os.environ["DSN"], minsize=POOL, maxsize=POOL) as pool:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(TABLE)

        async def chat(request: web.Request) -> web.Response:
            body = await request.json()
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute(INSERT, (body["session_id"], body["message"]))
            return web.json_response({"reply": "Dziękujemy.", "session_id": body["session_id"]})

        async def health(_: web.Request) -> web.Response:
            return web.json_response({})

        app = web.Application()
        app.router.add_post("/api/chatbot/chat", chat)
        app.router.add_get("/health", health)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(os.environ["HTTP_PORT"])).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
