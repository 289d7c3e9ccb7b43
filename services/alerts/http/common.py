"""Helpers shared by the routes."""

from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web

from libs.common.http.application import only
from services.alerts.messages import columns
from services.alerts.rules.delivery import TERMINAL, State

admin = partial(only, "admin")
service = partial(only, "service")
service_or_admin = partial(only, "service", or_role="admin")


def operator(request: web.Request) -> str | None:
    """Return who made this call, as the gateway says; at most 200 characters."""
    return request.headers.get("X-Operator", "")[:200] or None


def known_zone(name: str) -> str:
    """:raises ValueError: there is no such time zone"""
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("no such time zone, as in Europe/Warsaw") from None
    return name


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
        "last_retry_at": row.last_attempt_at and row.last_attempt_at.isoformat(),
        "next_attempt_at": row.due_at.isoformat() if open_ else None,
    }
