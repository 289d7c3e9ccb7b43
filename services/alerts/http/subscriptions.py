"""Subscriptions: make, list, change and delete them; their deliveries, and replays."""

import secrets
from base64 import b64encode
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from aiohttp import web
from pydantic import AfterValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.http.application import (
    PERSONAL,
    Model,
    Moment,
    Problem,
    Time,
    json_response,
    page,
    parse,
    parse_query,
    path_id,
    there,
)
from libs.domain import acts_outbox
from libs.domain.acts import Actor
from libs.domain.acts_outbox import record
from libs.domain.email_address import Email
from services.alerts.channels import channel as channels
from services.alerts.channels import subscription as channel
from services.alerts.channels.network import Networks
from services.alerts.delivery.events import order, row_of
from services.alerts.http.common import acting, admin, operator
from services.alerts.http.dlq import MOST_REPLAYED, After, cursor_of
from services.alerts.messages import columns
from services.alerts.rules import events
from services.alerts.store import breakers, subscriptions
from services.alerts.store.subscriptions import run, target_of

MOST = 100
KEPT = timedelta(days=14)
OVERLAP_SECONDS = 24 * 3600.0
PAGE = 100
EVENTS_PAGE = 50
"""Each has at most 64 KiB."""


def _event(pattern: str) -> str:
    if not any(events.wants([pattern], each) for each in events.EVENTS):
        raise ValueError("no event has this name; docs/events.md lists them")
    return pattern


Pattern = Annotated[str, Field(pattern=r"^[a-z_]+(\.([a-z_]+|\*))?$|^\*$"), AfterValidator(_event)]
Patterns = Annotated[list[Pattern], Field(min_length=1, max_length=50)]
Url = Annotated[channels.Url, Field(max_length=2_000, pattern=r"^[^\x00-\x20]+$")]
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")]


class Changes(Model):
    url: Url | None = None
    events: Patterns | None = None
    description: Text | None = None
    owner_email: Email | None = None
    paused: bool | None = None


class New(Model):
    url: Url
    events: Patterns
    owner_email: Email
    description: Text = ""
    personal_data: bool = False


class Wanted(Model):
    """The query of the deliveries."""

    status: Literal["pending", "delivered", "failed", "discarded", "in_doubt"] | None = None
    event: str | None = None
    since: Time | None = None
    cursor: After | None = None


class Replay(Model):
    since: Moment
    until: Moment
    events: Patterns = Field(default=["*"])
    only_failed: bool = False


@dataclass(frozen=True, eq=False)
class SubscriptionRoutes:
    engine: AsyncEngine
    private: Networks

    def add_to(self, app: web.Application) -> None:
        path = "/api/subscriptions"
        app.router.add_get(path, admin(self.listed))
        app.router.add_post(path, admin(self.add))
        app.router.add_get(f"{path}/{{id}}", admin(self.one))
        app.router.add_patch(f"{path}/{{id}}", admin(self.change))
        app.router.add_delete(f"{path}/{{id}}", admin(self.remove))
        app.router.add_post(f"{path}/{{id}}/secret", admin(self.rotate))
        app.router.add_post(f"{path}/{{id}}/test", admin(self.test))
        app.router.add_get(f"{path}/{{id}}/deliveries", admin(self.deliveries))
        app.router.add_post(f"{path}/{{id}}/replay", admin(self.replay))
        app.router.add_get("/api/events", admin(self.happened))

    async def listed(self, _: web.Request) -> web.Response:
        rows = await run.alone(self.engine, "listed", id=None)
        return json_response({"items": list(map(_shown, rows)), "next_cursor": None})

    async def one(self, request: web.Request) -> web.Response:
        async with self.engine.connect() as tx:
            return json_response(await self._one(tx, path_id(request, "subscription")))

    async def _one(self, tx: AsyncConnection, subscription_id: UUID) -> dict[str, Any]:
        row = (await run(tx, "listed", id=subscription_id)).one_or_none()
        return _shown(there(row, "subscription"))

    def _acting(
        self, request: web.Request, what: str
    ) -> AbstractAsyncContextManager[tuple[AsyncConnection, Any]]:
        return acting(self.engine, request, run, "subscription", what)

    async def add(self, request: web.Request) -> web.Response:
        body = await parse(request, New)
        self._check(body.url)
        if body.personal_data:
            _need_persons(request)
        secret = _secret()
        async with self.engine.begin() as tx:
            added = await run(tx, "add", **body.model_dump(), made_by=_maker(request))
            made = added.scalar_one()
            if (await run(tx, "count")).scalar_one() > MOST:
                raise Problem(409, detail=f"there are {MOST} subscriptions; delete one first")
            await run(tx, "rotate", id=made, secret=secret, seconds=0)
            await record(tx, request, "subscription.create", "subscription", made)
            shown = await self._one(tx, made)
        return json_response(shown | {"secret": secret}, status=201)

    async def change(self, request: web.Request) -> web.Response:
        """Change it; what it did not get while it was paused a replay sends."""
        body = await parse(request, Changes)
        changes = body.model_dump(exclude_none=True)
        if "url" in changes:
            self._check(changes["url"])
        async with self._acting(request, "change") as (tx, row):
            names = ("url", "events", "description", "owner_email", "paused", "made_by")
            values = {name: getattr(row, name) for name in names} | changes
            if "paused" in changes:
                values["paused"] = (row.paused or "asked") if changes["paused"] else None
            resumes = bool(row.paused) and not values["paused"]
            if row.personal_data and (resumes or changes.keys() & {"url", "events"}):
                _need_persons(request)
            if resumes:  # with its breaker, and with the key that does so
                await breakers.run(tx, "reset", target=target_of(row.id))
                values["made_by"] = _maker(request)
            await run(tx, "change", id=row.id, **values)
            shown = await self._one(tx, row.id)
        return json_response(shown)

    async def remove(self, request: web.Request) -> web.Response:
        async with self._acting(request, "delete") as (tx, row):
            await subscriptions.stop(tx, row.id, operator(request))
        return json_response({"deleted": str(row.id)})

    async def rotate(self, request: web.Request) -> web.Response:
        """Make another secret; the one before signs as well for a day, an older one ends now."""
        secret = _secret()
        async with self._acting(request, "rotate") as (tx, row):
            await run(tx, "rotate", id=row.id, secret=secret, seconds=OVERLAP_SECONDS)
        return json_response({"id": str(row.id), "secret": secret})

    async def test(self, request: web.Request) -> web.Response:
        async with self._acting(request, "test") as (tx, row):
            if row.paused:
                raise Problem(409, detail="it is paused; resume it first")
            sent, said = uuid4(), {"message": "This is a test."}
            test = row_of(row, sent, events.TEST, said, datetime.now(UTC))
            await order(tx, [test])
        return json_response({"id": str(sent)}, status=202)

    async def deliveries(self, request: web.Request) -> web.Response:
        """List its deliveries, the newest first. An answer has what cannot be a secret."""
        query, subscription_id = parse_query(request, Wanted), path_id(request, "subscription")
        before, after = query.cursor[:2] if query.cursor else (None, None)
        async with self.engine.connect() as tx:
            await self._one(tx, subscription_id)
            rows = await run(
                tx, "deliveries", target=target_of(subscription_id), event=query.event,
                status=query.status, since=query.since, before=before, id=after, limit=PAGE + 1,
            )  # fmt: skip
        return json_response(page(rows, PAGE, lambda row: cursor_of(row.created_at, row.id)))

    async def replay(self, request: web.Request) -> web.Response:
        """Send events again, once all that is due has been sent."""
        body = await parse(request, Replay)
        now = datetime.now(UTC)
        if not now - KEPT <= body.since < body.until <= now:
            text = "since must be before until, within the last two weeks"
            raise Problem(422, errors=[("since", text)])
        async with self._acting(request, "replay") as (tx, row):
            if row.paused or row.replay:
                why = "it is paused" if row.paused else "a replay is running"
                raise Problem(409, detail=f"{why}; try again afterwards")
            which = {**body.model_dump(), "after": 0, "limit": MOST_REPLAYED + 1}
            found = await run(tx, "count_replay", **which, target=target_of(row.id))
            if (matched := found.scalar_one()) > MOST_REPLAYED:
                text = f"more than {MOST_REPLAYED:,} match: choose less time"
                raise Problem(422, errors=[("since", text)])
            replay = {**body.model_dump(mode="json"), "after": 0} if matched else None
            await run(tx, "order_replay", id=row.id, replay=replay)
        return json_response({"matched": matched}, status=202)

    async def happened(self, request: web.Request) -> web.Response:
        """List what happened after an event, by its number; without `after`, begin at the end."""
        given = request.query.get("after")
        if given is not None and not (given.isdecimal() and len(given) <= 18):
            raise Problem(422, errors=[("after", "must be a next_cursor")])
        persons = _sees_persons(request)
        async with self.engine.begin() as tx:
            if given is None:
                last = (await run(tx, "last")).scalar_one()
                return json_response({"items": [], "next_cursor": str(last)})
            rows = await run(tx, "events", after=int(given), limit=EVENTS_PAGE)
            if rows and persons:
                ids = [row.id for row in rows]
                await acts_outbox.look(tx, request.headers, "event.look", "event", ids)
        items = [_happened(row, persons=persons) for row in rows]
        cursor = str(rows[-1].number) if rows else given
        return json_response({"items": items, "next_cursor": cursor})

    def _check(self, url: str) -> None:
        if (said := channel.fault(url, self.private)) is not None:
            raise Problem(422, errors=[("url", said)])


def _sees_persons(request: web.Request) -> bool:
    return request.headers.get(PERSONAL) == "yes"


def _need_persons(request: web.Request) -> None:
    if not _sees_persons(request):
        raise Problem(403, detail="a subscription to personal data needs the scope personal_data")


def _maker(request: web.Request) -> str:
    actor = Actor.of(request.headers)
    return f"{actor.kind}:{actor.id}"


def _secret() -> str:
    return f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"


def _shown(row: Any) -> dict[str, Any]:
    names = [name for name in row._fields if name not in {"id", "replay"}]
    return {"id": str(row.id), **columns(row, *names), "replaying": row.replay is not None}


def _happened(row: Any, *, persons: bool) -> dict[str, Any]:
    data = row.data if persons else events.without_persons(row.data)
    return {"type": row.type, "id": str(row.id), "timestamp": row.at, "data": data}
