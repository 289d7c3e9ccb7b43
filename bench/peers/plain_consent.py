"""The simplest consent service: the same framework and driver, one INSERT, no proof.

One committed row per withdrawal in plain text, without chain, encryption or events; and a constant
status.
"""

from collections.abc import Iterator

import aiopg
from aiohttp import web

from bench.peers import plain

TABLE = """
CREATE TABLE IF NOT EXISTS plain_withdrawal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL, ip_address text,
    user_agent text, reason text, created_at timestamptz NOT NULL DEFAULT now())
"""
INSERT = """
INSERT INTO plain_withdrawal (email, ip_address, user_agent, reason) VALUES (%s, %s, %s, %s)
"""
STATUS = {
    "email": None,
    "unsubscribed": False,
    "consents": None,
    "last_action": None,
    "last_action_at": None,
}


def routes(pool: aiopg.Pool) -> Iterator[web.RouteDef]:
    async def unsubscribe(request: web.Request) -> web.Response:
        body = await request.json()
        row = (
            body["email"],
            request.headers.get("X-Client-Address"),
            request.headers.get("User-Agent"),
            body.get("reason"),
        )
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(INSERT, row)
        answer = {"success": True, "email": body["email"], "unsubscribed": True}
        return web.json_response(answer)

    async def status(_: web.Request) -> web.Response:
        return web.json_response(STATUS)

    yield web.post("/api/unsubscribe", unsubscribe)
    yield web.get("/api/unsubscribe/status/{email}", status)


if __name__ == "__main__":
    plain.run(TABLE, routes)
