"""The gateways' calls: the keys in force."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from libs.common.http.application import Model, Moment, Problem, json_response, parse
from services.console.keys.sync import Report, Sync, Use
from services.console.rules import ID
from services.console.store.versions import KeysRestoredError, Version

Process = Annotated[str, Field(min_length=1, max_length=200)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MOST_DIGESTS = 4_000
MOST_PEOPLE = 10_000


class Used(Model):
    id: Annotated[str, Field(pattern=rf"^{ID.pattern}$")]
    at: Moment
    calls: Annotated[int, Field(ge=1)]


class SyncRequest(Model):
    process: Process
    instance: Process
    epoch: Annotated[str, Field(max_length=100)] | None = None
    """None: the process has no keys yet."""
    version: Annotated[int, Field(ge=0, lt=2**53)] = 0
    wait: Annotated[float, Field(ge=0, le=20)] = 0
    used: list[Used] = Field([], max_length=1_000)
    held: Annotated[list[Digest], Field(max_length=MOST_DIGESTS)] | None = None
    people: Annotated[dict[str, str], Field(max_length=MOST_PEOPLE)] | None = None


class Goodbye(Model):
    process: Process
    instance: Process


class SyncRoutes:
    def __init__(self, sync: Sync) -> None:
        self._sync = sync

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/internal/keys/sync", self.sync)
        app.router.add_post("/internal/keys/goodbye", self.goodbye)

    async def sync(self, request: web.Request) -> web.Response:
        """Answer with the keys as soon as they differ from the caller's, else 204 after `wait`."""
        body = await parse(request, SyncRequest)
        report = Report(
            body.process,
            body.instance,
            Version(body.epoch, body.version) if body.epoch else None,
            body.wait,
            [Use(use.id, use.at, use.calls) for use in body.used],
            None if body.held is None else [bytes.fromhex(digest) for digest in body.held],
            body.people,
        )
        try:
            found = await self._sync.answer(report)
        except KeysRestoredError as error:
            raise Problem(409, detail=error.__doc__) from None
        return web.Response(status=204) if found is None else json_response(found)

    async def goodbye(self, request: web.Request) -> web.Response:
        body = await parse(request, Goodbye)
        await self._sync.leave(body.process, body.instance)
        return web.Response(status=204)
