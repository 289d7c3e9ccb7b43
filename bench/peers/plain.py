"""Shared by the simplest forms of our services: the same framework, driver and pool size."""

import asyncio
import os
from collections.abc import Callable, Iterable

import aiopg
import uvloop
from aiohttp import web

POOL = 10  # as ours


def run(table: str, routes: Callable[[aiopg.Pool], Iterable[web.RouteDef]]) -> None:
    uvloop.run(_serve(table, routes))


async def _serve(table: str, routes: Callable[[aiopg.Pool], Iterable[web.RouteDef]]) -> None:
    async with aiopg.create_pool(os.environ["DSN"], minsize=POOL, maxsize=POOL) as pool:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(table)
        app = web.Application()
        app.router.add_routes([*routes(pool), web.get("/health", _health)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(os.environ["HTTP_PORT"])).start()
        await asyncio.Event().wait()


async def _health(_: web.Request) -> web.Response:
    return web.json_response({})
