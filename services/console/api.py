"""The console's API: keys and people for the admin key, the record, and the gateways' calls."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Problem, in_utc, json_response, only, page, parse, path_id
from libs.domain.acts import Actor
from services.console.keys.keys import Confirmation, Keys
from services.console.keys.sync import Sync
from services.console.messages import (
    WHY,
    AcceptRestore,
    ActionRecord,
    Because,
    CreateKey,
    Goodbye,
    Invite,
    Link,
    RefusedError,
    Report,
    RotateKey,
    SetRoles,
)
from services.console.people.people import People
from services.console.record import Acts
from services.console.rules import ID, Secret
from services.console.store.sql import run
from services.console.texts import ZONE

PAGE = 50


class ApiRoutes:
    def __init__(
        self, engine: AsyncEngine, keys: Keys, people: People, sync: Sync, acts: Acts
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._people = people
        self._sync = sync
        self._acts = acts

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "/api/keys", self.keys),
            ("POST", "/api/keys", self.create_key),
            ("POST", "/api/keys/accept-restore", self.accept_restore),
            ("POST", "/api/keys/{id}/rotate", self.rotate_key),
            ("POST", "/api/keys/{id}/revoke", self.revoke_key),
            ("GET", "/api/staff", self.staff),
            ("POST", "/api/staff", self.invite),
            ("POST", "/api/staff/{id}/invitation", self.invite_again),
            ("POST", "/api/staff/{id}/roles", self.set_roles),
            ("POST", "/api/staff/{id}/reset-factor", self.reset_factor),
            ("POST", "/api/staff/{id}/disable", self.disable),
            ("GET", "/api/actions", self.actions),
        ):
            app.router.add_route(method, path, only("admin", handler))
        app.router.add_post("/internal/actions", only("service", self.take))
        app.router.add_post("/internal/keys/sync", self.sync)
        app.router.add_post("/internal/keys/goodbye", self.goodbye)

    async def keys(self, _: web.Request) -> web.Response:
        found = await run.alone(self._engine, "all_keys")
        restored = await self._keys.restored()
        shown = [_shown(each) for each in found]
        return json_response({"items": shown, "restored": restored and asdict(restored)})

    async def create_key(self, request: web.Request) -> web.Response:
        body = await parse(request, CreateKey)
        made = await self._keys.create(Actor.of(request.headers), body.columns())
        return _changed(*made, 201)

    async def rotate_key(self, request: web.Request) -> web.Response:
        body, actor = await parse(request, RotateKey), Actor.of(request.headers)
        overlap = timedelta(hours=body.overlap_hours)
        return _changed(*await self._keys.rotate(actor, key_id(request), overlap, body.expires_at))

    async def revoke_key(self, request: web.Request) -> web.Response:
        """Answer 200 once no gateway accepts the key; 202 names those that may still do."""
        body, actor = await parse(request, Because), Actor.of(request.headers)
        return _changed(None, await self._keys.revoke(actor, key_id(request), body.reason))

    async def accept_restore(self, request: web.Request) -> web.Response:
        """Without `confirm`, only say what was changed since the backup."""
        body = await parse(request, AcceptRestore)
        if not body.confirm:
            if (lacking := await self._keys.restored()) is None:
                raise RefusedError(**WHY["not_restored"])
            return json_response(asdict(lacking))
        lacking, confirmed = await self._keys.accept_restore(Actor.of(request.headers))
        return _changed(None, confirmed, **asdict(lacking))

    async def staff(self, _: web.Request) -> web.Response:
        names = ("email", "name", "roles", "joined")
        shown = [
            {"id": str(each.id), "disabled": each.disabled_at is not None}
            | {name: getattr(each, name) for name in names}
            for each in await self._people.listed()
        ]
        return json_response({"items": shown})

    async def invite(self, request: web.Request) -> web.Response:
        body = await parse(request, Invite)
        staff_id, link = await self._people.invite(
            Actor.of(request.headers), body.email, body.name, body.roles, body.language,
            show=body.show_link,
        )  # fmt: skip
        return json_response({"id": str(staff_id), "link": link}, 201)

    async def invite_again(self, request: web.Request) -> web.Response:
        body = await parse(request, Link) if request.body_exists else Link()
        who = Actor.of(request.headers), path_id(request, "person")
        _, link = await self._people.invite_again(*who, show=body.show_link)
        return json_response({"link": link}, 201)

    async def set_roles(self, request: web.Request) -> web.Response:
        roles, actor = (await parse(request, SetRoles)).roles, Actor.of(request.headers)
        await self._people.set_roles(actor, path_id(request, "person"), roles)
        return json_response({"roles": roles})

    async def reset_factor(self, request: web.Request) -> web.Response:
        await self._people.reset_factor(Actor.of(request.headers), path_id(request, "person"))
        return json_response({"reset": True})

    async def disable(self, request: web.Request) -> web.Response:
        body, actor = await parse(request, Because), Actor.of(request.headers)
        await self._people.disable(actor, path_id(request, "person"), body.reason)
        return json_response({"disabled": True})

    async def actions(self, request: web.Request) -> web.Response:
        return json_response(await acts_of(self._engine, request.query))

    async def take(self, request: web.Request) -> web.Response:
        """Accept a record of the gateway's act while RabbitMQ is unavailable."""
        await self._acts.take(await parse(request, ActionRecord))
        return json_response({"recorded": True}, status=202)

    async def sync(self, request: web.Request) -> web.Response:
        """Answer with the keys as soon as they differ from the caller's, else 204 after `wait`."""
        found = await self._sync.answer(await parse(request, Report))
        return web.Response(status=204) if found is None else json_response(found)

    async def goodbye(self, request: web.Request) -> web.Response:
        body = await parse(request, Goodbye)
        await self._sync.leave(body.process, body.instance)
        return web.Response(status=204)


def key_id(request: web.Request) -> str:
    if not ID.fullmatch(given := request.match_info["id"]):
        raise RefusedError(**WHY["unknown_key"])
    return given


def _changed(
    secret: Secret | None, confirmed: Confirmation, status: int = 200, **more: Any
) -> web.Response:
    body: dict[str, Any] = {**more, "in_force_on": confirmed.in_force_on}
    if secret is not None:
        body |= {"id": secret.key_id, "key": secret.text}
    if confirmed.waiting_for:
        body["waiting_for"] = confirmed.waiting_for
        status = 202
    return json_response(body, status)


def key_state(row: Any) -> str:
    if row.revoked_at:
        return "revoked"
    return "in force" if row.expires_at > datetime.now(UTC) else "expired"


def _shown(row: Any) -> dict[str, Any]:
    shown: dict[str, Any] = row._asdict() | {"state": key_state(row)}
    shown["secrets"] = sorted(row.ends or ())
    del shown["ends"]
    return shown


async def acts_of(engine: AsyncEngine, query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of acts.

    :raises Problem: 422
    """
    before, since, until = None, None, None
    if given := query.get("cursor"):
        at, _, id_ = given.partition("_")
        try:
            before = in_utc(datetime.fromisoformat(at)), UUID(id_)
        except ValueError:
            raise Problem(422, errors=[("cursor", "not a cursor of this list")]) from None
    if (given := query.get("day")) is not None:
        try:
            day = date.fromisoformat(given)
            since = datetime.combine(day, time(), ZONE)
            until = datetime.combine(day + timedelta(days=1), time(), ZONE)
        except (ValueError, OverflowError):
            raise Problem(422, errors=[("day", "not a date, such as 2026-11-27")]) from None
    # No act has a NUL, which PostgreSQL takes nowhere.
    actor, action = (query.get(name, "").replace("\0", " ") for name in ("actor", "action"))
    last_at, last_id = before or (None, None)
    chosen = {"actor": actor, "action": action, "since": since, "until": until}
    found = await run.alone(engine, "acts", at=last_at, id=last_id, most=PAGE + 1, **chosen)
    # Without a plus, which reads as a space where a query is not quoted.
    acts = [
        row._asdict() | {"at": in_utc(row.at).isoformat().replace("+00:00", "Z")} for row in found
    ]
    return page(acts, PAGE, "{0[at]}_{0[id]}".format, dict)
