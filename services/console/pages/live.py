"""`GET /console/events`: what has changed, as server-sent events for open pages (live.py)."""

from contextlib import suppress

from aiohttp import web

from libs.common.database import postgres
from libs.common.http.application import until_stop
from services.console.live import Live
from services.console.pages.door import Door
from services.console.pages.page import HEADERS

CHECK_SECONDS = 15.0
"""How long a session that has ended may hear on; and proxies wait longer for more of an answer."""


class LiveRoutes:
    def __init__(self, door: Door, live: Live) -> None:
        self._door = door
        self._live = live

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/console/events", until_stop(app, self.events))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send `end` with `session` or `another`, if the page must not come back by itself."""
        visitor = await self._door.visitor(request, active=False)
        response = web.StreamResponse(headers=HEADERS | {"X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        await response.prepare(request)
        # The answer has begun: without the database it just ends, and the page asks again.
        with suppress(OSError), postgres.through_outages():  # OSError: the page was closed
            await response.write(b"retry: 5000\n\n")
            if visitor is not None:
                with self._live.stream(visitor) as stream:
                    while visitor is not None and not stream.ended:
                        names = await stream.names(CHECK_SECONDS)
                        said = "".join(f"data: {name}\n\n" for name in names)
                        await response.write(said.encode() or b":\n\n")
                        visitor = await self._door.visitor(request, active=False)
            reason = b"session" if visitor is None else b"another"
            await response.write(b"event: end\ndata: %b\n\n" % reason)
        return response
