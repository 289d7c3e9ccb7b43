"""The record: who did what, by person, act and day; and what other services did, taken into it."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Problem, in_utc, json_response, only, parse
from services.console.acts import Acts
from services.console.http.door import Door
from services.console.http.pages import page
from services.console.messages import ActionRecord
from services.console.people import People
from services.console.person import Role
from services.console.store import actions
from services.console.store.sessions import Visitor
from services.console.texts import ZONE, moment

PAGE = 50
FILTERS = ("actor", "action", "day")
KEYS = (
    "ADMIN_API_KEY", "SERVICE_API_KEY", "ADMIN_API_KEY_PREVIOUS", "SERVICE_API_KEY_PREVIOUS",
)  # fmt: skip


class ActionRoutes:
    def __init__(self, engine: AsyncEngine, door: Door, acts: Acts, staff: People) -> None:
        self._engine = engine
        self._door = door
        self._acts = acts
        self._people = staff

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/actions", only("admin", self.actions))
        app.router.add_post("/internal/actions", only("service", self.take))
        who = (Role.ADMIN, Role.PRIVACY)
        self._door.add(app, "GET", "/console/actions", self.actions_page, *who)

    async def take(self, request: web.Request) -> web.Response:
        """Take an act of the gateway while RabbitMQ is away."""
        await self._acts.take(await parse(request, ActionRecord))
        return json_response({"recorded": True}, status=202)

    async def actions(self, request: web.Request) -> web.Response:
        found, older = await self._listed(request.query)
        return json_response({"items": found, "next_cursor": older})

    async def actions_page(self, request: web.Request, visitor: Visitor) -> web.Response:
        # A form sends each of its fields, also those that are empty.
        given = {name: value for name, value in request.query.items() if value}
        found, older = await self._listed(given)
        known = await self._people.listed()
        async with self._engine.connect() as tx:
            kinds = await actions.kinds(tx)
        for each in found:
            each["at"] = moment(datetime.fromisoformat(each["at"]))
        asked = {name: request.query.get(name, "") for name in FILTERS}
        return page(
            request, "actions.html", "actions", visitor, actions=found, asked=asked, kinds=kinds,
            actors=[(str(each.id), each.name) for each in known] + [(key, key) for key in KEYS],
            older=older and urlencode({**asked, "cursor": older}),
        )  # fmt: skip

    async def _listed(self, query: Mapping[str, str]) -> tuple[list[dict[str, Any]], str | None]:
        """Return a page of acts as JSON, and the cursor of the next one.

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
        async with self._engine.connect() as tx:
            found = await actions.listed(
                tx,
                before,
                PAGE,
                actor=_text(query.get("actor")),
                action=_text(query.get("action")),
                since=since,
                until=until,
            )
        # Without a plus, which reads as a space where a query is not quoted.
        shown = [
            {
                **each,
                "id": str(each["id"]),
                "at": each["at"].astimezone(UTC).isoformat().replace("+00:00", "Z"),
            }
            for each in found
        ]
        last = shown[-1] if len(shown) == PAGE else None
        return shown, f"{last['at']}_{last['id']}" if last else None


def _text(given: str | None) -> str | None:
    """Return a filter; no act has a NUL, which PostgreSQL takes nowhere."""
    return given.replace("\0", " ") if given else None
