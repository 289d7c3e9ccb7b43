"""The simplest chat: one INSERT of the message and a constant reply."""

from collections.abc import Iterator

import aiopg
from aiohttp import web

from bench.peers import plain

TABLE = """
CREATE TABLE IF NOT EXISTS plain_message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, session_id text NOT NULL,
    body text NOT NULL, created_at timestamptz NOT NULL DEFAULT now())
"""
INSERT = "INSERT INTO plain_message (session_id, body) VALUES (%s, %s)"


def routes(pool: aiopg.Pool) -> Iterator[web.RouteDef]:
    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(INSERT, (body["session_id"], body["message"]))
        return web.json_response({"reply": "Dziękujemy.", "session_id": body["session_id"]})

    yield web.post("/api/chatbot/chat", chat)


if __name__ == "__main__":
    plain.run(TABLE, routes)
