"""The record: who did what, by person, act and day; and what the gateway did, taken into it."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Problem, in_utc, json_response, only, parse
from services.console.messages import ActionRecord
from services.console.record import Acts
from services.console.store import actions
from services.console.texts import ZONE

PAGE = 50


class ActionRoutes:
    def __init__(self, engine: AsyncEngine, acts: Acts) -> None:
        self._engine = engine
        self._acts = acts

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/actions", only("admin", self.actions))
        app.router.add_post("/internal/actions", only("service", self.take))

    async def take(self, request: web.Request) -> web.Response:
        """Take an act of the gateway while RabbitMQ is away."""
        await self._acts.take(await parse(request, ActionRecord))
        return json_response({"recorded": True}, status=202)

    async def actions(self, request: web.Request) -> web.Response:
        found, older = await page_of(self._engine, request.query)
        return json_response({"items": found, "next_cursor": older})


async def page_of(
    engine: AsyncEngine, query: Mapping[str, str]
) -> tuple[list[dict[str, Any]], str | None]:
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
    async with engine.connect() as tx:
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
