"""What consent does, in its plainest form: the same framework and driver, one INSERT, no proof.

One committed row per withdrawal, in clear, that nothing chains, encrypts or tells anybody; a status
that is not looked up at all.
"""

import asyncio
import os

import aiopg
import uvloop
from aiohttp import web

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
POOL = 10  # as consent's


async def main() -> None:
    async with aiopg.create_pool(os.environ["DSN"], minsize=POOL, maxsize=POOL) as pool:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(TABLE)

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

        app = web.Application()
        app.router.add_post("/api/unsubscribe", unsubscribe)
        app.router.add_get("/api/unsubscribe/status/{email}", status)
        app.router.add_get("/health", status)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(os.environ["HTTP_PORT"])).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
