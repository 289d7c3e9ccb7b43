"""Answers that do not end by themselves."""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler


def until_stop(app: web.Application, handler: Handler) -> Handler:
    """Cancel this handler's requests when the application stops: it would wait for them."""
    running: set[asyncio.Task[Any]] = set()

    async def run(request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine called this
        running.add(task)
        try:
            return await handler(request)
        finally:
            running.discard(task)

    async def stop(_: web.Application) -> None:
        for task in running:
            task.cancel()

    app.on_shutdown.append(stop)
    return run
