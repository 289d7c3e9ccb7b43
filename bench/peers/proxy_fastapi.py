"""FastAPI, slowapi on Redis and httpx.

PORT=… UPSTREAM_URL=… REDIS_URL=… uvicorn bench.peers.proxy_fastapi:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request, Response
from slowapi import Limiter
from slowapi.util import get_remote_address

UPSTREAM = os.environ["UPSTREAM_URL"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=100)) as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)
app.state.limiter = limiter = Limiter(get_remote_address, storage_uri=os.environ["REDIS_URL"])


@app.post("/{path:path}")
@limiter.limit("1000000000/minute")
@limiter.limit("1000000000/hour")
async def proxy(request: Request, path: str) -> Response:
    answer = await request.app.state.client.post(
        f"{UPSTREAM}/{path}",
        content=await request.body(),
        headers={"Content-Type": request.headers["Content-Type"]},
    )
    return Response(answer.content, answer.status_code, media_type=answer.headers["Content-Type"])
