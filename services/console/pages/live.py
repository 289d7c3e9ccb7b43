"""Tells open pages what has changed: names only, so that no page learns what it may not show.

While somebody watches, one task asks the gateway every five seconds, in the name of a watcher who
may see it, and compares with the last answer. A page is older than its stream, so what has not been
compared yet, or changed shortly before, counts as changed. What changed back at once may be missed.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from libs.common.database import postgres
from libs.common.http.application import until_stop
from services.console import metrics
from services.console.gateway import Answer, Gateway, items
from services.console.pages.door import Door
from services.console.pages.page import HEADERS
from services.console.rules import ON_CALL, SALES, Role, may
from services.console.store.sessions import Visitor

TICK_SECONDS = 5.0
SHORTLY_SECONDS = 10.0
CHECK_SECONDS = 15.0
"""How long an ended session may still receive; proxies wait longer for more of an answer."""
OF_A_SESSION = 2
"""Streams. Browsers open no more than six connections to one host over HTTP/1.1."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    name: str
    path: str
    roles: tuple[Role, ...]
    """Who may see it: others are not notified, and it is not asked in their name."""
    shown: Callable[[Answer], Any]
    """Returns what pages show of an answer, without what differs in every call."""
    query: Mapping[str, str | int] = field(default_factory=dict)


def _counts(answer: Answer) -> Any:
    names = ("pending", "failed", "in_doubt", "delivered")
    return [
        (target, *(counts[name] for name in names), (counts["oldest_pending_seconds"] or 0) // 60)
        for target, counts in sorted(answer.body["targets"].items())
    ]


def _breakers(answer: Answer) -> Any:
    names = ("state", "failures", "open_since", "paused")
    return [(target, *(each.get(name) for name in names)) for target, each in answer.body.items()]


def _ids(answer: Answer) -> Any:
    return [one["id"] for one in items(answer)]


LOOKS = (
    Look("alerts", "/api/dlq/stats", ON_CALL, _counts),
    Look("breakers", "/api/breakers", ON_CALL, _breakers),
    Look("leads", "/api/leads", SALES, items, {"limit": 100}),
    Look("leads", "/api/leads/suspected", SALES, _ids, {"limit": 100}),
    Look("cases", "/api/cases", (Role.SALES, Role.OPS), _ids, {"state": "unanswered"}),
    Look("cases", "/api/cases", (Role.SALES, Role.OPS), _ids, {"state": "open"}),
)


class Stream:
    """One open page. `ended`: a newer one of the same session replaced it."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self.ended = False
        self._names: set[str] = set()
        self._woken = asyncio.Event()

    def hears(self, look: Look) -> bool:
        return may(self.visitor.roles, *look.roles)

    def tell(self, name: str) -> None:
        self._names.add(name)
        self._woken.set()

    def end(self) -> None:
        self.ended = True
        self._woken.set()

    async def names(self, seconds: float) -> set[str]:
        """Wait for what has changed; return nothing after this long, and at the end."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()
        told, self._names = self._names, set()
        return told


class Live:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._streams: list[Stream] = []
        self._watched = asyncio.Event()
        self._last: dict[Look, int] = {}
        self._changed_at: dict[Look, float] = {}

    @contextmanager
    def stream(self, visitor: Visitor) -> Iterator[Stream]:
        stream = Stream(visitor)
        same = [each for each in self._streams if each.visitor.session == visitor.session]
        for oldest in same[: len(same) - OF_A_SESSION + 1]:
            oldest.end()
        self._streams.append(stream)
        shortly = time.monotonic() - SHORTLY_SECONDS
        for look in LOOKS:
            if self._changed_at.get(look, shortly) > shortly and stream.hears(look):
                stream.tell(look.name)
        self._watched.set()
        metrics.STREAMS.inc()
        try:
            yield stream
        finally:
            metrics.STREAMS.dec()
            self._streams.remove(stream)

    async def run(self) -> None:
        while True:
            await self._watched.wait()
            await asyncio.gather(*(self._look(look) for look in LOOKS))
            if not self._streams:
                self._watched.clear()
                self._last.clear()
            await asyncio.sleep(TICK_SECONDS)

    async def _look(self, look: Look) -> None:
        watching = next((each for each in self._streams if each.hears(look)), None)
        if watching is None:
            self._last.pop(look, None)
            return
        answer = await self._gateway.get(watching.visitor, look.path, **look.query)
        # A hash: personal data stays with whoever asked for it.
        shown = look.shown(answer) if answer.ok and answer.body is not None else None
        found = hash((answer.status, repr(shown)))
        if self._last.get(look) != found:
            self._last[look], self._changed_at[look] = found, time.monotonic()
            for stream in filter(lambda each: each.hears(look), self._streams):
                stream.tell(look.name)


class LiveRoutes:
    def __init__(self, door: Door, live: Live) -> None:
        self._door = door
        self._live = live

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/console/events", until_stop(app, self.events))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Say what has changed, as server-sent events.

        Send `end` with `session` or `another`, if the page must not come back by itself.
        """
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
