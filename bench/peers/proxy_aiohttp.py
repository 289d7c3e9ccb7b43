"""aiohttp reverse proxies: bare, or behind two limits of aiohttp-ratelimiter on Redis.

PORT=… UPSTREAM_URL=… [REDIS_URL=…] python bench/peers/proxy_aiohttp.py bare | limited
"""

import os
import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, TCPConnector, web
from aiohttplimiter import RedisLimiter, default_keyfunc

UPSTREAM = os.environ["UPSTREAM_URL"]
SESSION = web.AppKey("session", ClientSession)


async def proxy(request: web.Request) -> web.Response:
    headers = {
        name: value
        for name, value in request.headers.items()
        if name.lower() not in {"host", "connection", "content-length"}
    }
    async with request.app[SESSION].request(
        request.method, UPSTREAM + request.path_qs, headers=headers, data=await request.read()
    ) as answer:
        return web.Response(
            status=answer.status, body=await answer.read(), content_type=answer.content_type
        )


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(connector=TCPConnector(limit=100)) as app[SESSION]:
        yield


def main() -> None:
    handler = proxy
    if sys.argv[1] == "limited":
        limiter = RedisLimiter(
            keyfunc=default_keyfunc, uri=os.environ["REDIS_URL"], implementation="redispy"
        )
        for limit in ("1000000000/minute", "1000000000/hour"):
            handler = limiter.limit(limit)(handler)
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", handler)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    uvloop.install()
    main()
