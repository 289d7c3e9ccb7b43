"""Helpers shared by the routes."""

from functools import partial
from typing import Any

from aiohttp import web

from libs.common.http.application import only
from services.alerts.alert import TERMINAL, State

admin = partial(only, "admin")
service = partial(only, "service")
service_or_admin = partial(only, "service", or_role="admin")


def operator(request: web.Request) -> str | None:
    """Return who made this call, as the gateway says; at most 200 characters."""
    return request.headers.get("X-Operator", "")[:200] or None


def number_in_path(request: web.Request) -> int:
    """Return the path's `id` as a key of a table; 0, which no row has, for anything else."""
    given = request.match_info["id"]
    return int(given) if given.isdecimal() and len(given) <= 18 else 0


def shown(row: Any) -> dict[str, Any]:
    """Return one delivery as JSON, without its payload."""
    open_ = State(row.state) not in TERMINAL
    return {
        "id": str(row.alert_id),
        "target": row.target,
        "event_type": row.event_type,
        "severity": row.severity,
        "state": row.state,
        "status": "pending" if open_ else row.state,
        "reason": row.reason,
        "error_message": row.error,
        "attempts": row.attempt,
        "duplicates": row.duplicates,
        "retry_count": max(row.attempts - 1, 0),
        "created_at": row.created_at.isoformat(),
        "last_retry_at": row.last_attempt_at.isoformat() if row.last_attempt_at else None,
        "next_attempt_at": row.due_at.isoformat() if open_ else None,
        "finished_at": row.finished_at.isoformat() if row.finished_at else None,
        "request_id": row.request_id,
        "operator": row.operator,
    }
