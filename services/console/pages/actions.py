"""The record: who did what, by person, act and day."""

from datetime import datetime
from urllib.parse import urlencode

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from services.console.api.actions import page_of
from services.console.pages.door import Door
from services.console.pages.page import page
from services.console.people.people import People
from services.console.rules import Role
from services.console.store import actions
from services.console.store.sessions import Visitor
from services.console.texts import moment

FILTERS = ("actor", "action", "day")
KEYS = (
    "ADMIN_API_KEY", "SERVICE_API_KEY", "ADMIN_API_KEY_PREVIOUS", "SERVICE_API_KEY_PREVIOUS",
)  # fmt: skip


class ActionPages:
    def __init__(self, engine: AsyncEngine, door: Door, staff: People) -> None:
        self._engine = engine
        self._door = door
        self._people = staff

    def add_to(self, app: web.Application) -> None:
        who = (Role.ADMIN, Role.PRIVACY)
        self._door.add(app, "GET", "/console/actions", self.actions_page, *who)

    async def actions_page(self, request: web.Request, visitor: Visitor) -> web.Response:
        # A form sends each of its fields, also those that are empty.
        given = {name: value for name, value in request.query.items() if value}
        found, older = await page_of(self._engine, given)
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
