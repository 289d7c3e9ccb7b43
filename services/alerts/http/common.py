"""Helpers shared by the routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from aiohttp import web
from pydantic import AfterValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.queries import Queries
from libs.common.http.application import only, path_id, there
from libs.domain.acts_outbox import record
from services.alerts.messages import columns
from services.alerts.rules.delivery import TERMINAL, State

admin = partial(only, "admin")
service = partial(only, "service")
service_or_admin = partial(only, "service", or_role="admin")


def operator(request: web.Request) -> str | None:
    """Return who made this call, as the gateway says; at most 200 characters."""
    return request.headers.get("X-Operator", "")[:200] or None


@asynccontextmanager
async def acting(
    engine: AsyncEngine, request: web.Request, run: Queries, kind: str, what: str
) -> AsyncIterator[tuple[AsyncConnection, Any]]:
    """Lock the row that the path names, and record the act unless it is refused.

    :raises Problem: 404 there is none
    """
    async with engine.begin() as tx:
        row = there((await run(tx, "lock", id=path_id(request, kind))).one_or_none(), kind)
        yield tx, row
        await record(tx, request, f"{kind}.{what}", kind, row.id)


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("no such time zone, as in Europe/Warsaw") from None
    return name


ZoneName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_known)]


def number_in_path(request: web.Request) -> int:
    """Return the path's `id` as a key of a table; 0, which no row has, for anything else."""
    given = request.match_info["id"]
    return int(given) if given.isdecimal() and len(given) <= 18 else 0


def shown(row: Any) -> dict[str, Any]:
    """Return one delivery as JSON, without its payload."""
    open_ = State(row.state) not in TERMINAL
    return {
        "id": str(row.alert_id),
        **columns(row, "target", "event_type", "severity", "state", "reason", "duplicates"),
        **columns(row, "created_at", "finished_at", "request_id", "operator"),
        "status": "pending" if open_ else row.state,
        "error_message": row.error,
        "attempts": row.attempt,
        "retry_count": max(row.attempts - 1, 0),
        "last_retry_at": row.last_attempt_at,
        "next_attempt_at": row.due_at if open_ else None,
    }
