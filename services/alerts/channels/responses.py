"""The meaning of an HTTP response, unless the provider has its own protocol."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from services.alerts.rules.delivery import MAX_PAUSE_SECONDS, Kind, Outcome, Reason

_BY_STATUS = {
    HTTPStatus.UNAUTHORIZED: (Kind.HELD, Reason.UNAUTHORIZED),
    HTTPStatus.FORBIDDEN: (Kind.HELD, Reason.UNAUTHORIZED),
    HTTPStatus.NOT_FOUND: (Kind.HELD, Reason.GONE),
    HTTPStatus.REQUEST_TIMEOUT: (Kind.FAILED, Reason.TIMEOUT),
    HTTPStatus.CONFLICT: (Kind.FAILED, Reason.REFUSED),
    HTTPStatus.GONE: (Kind.HELD, Reason.GONE),
    HTTPStatus.LOCKED: (Kind.FAILED, Reason.REFUSED),
    HTTPStatus.TOO_EARLY: (Kind.FAILED, Reason.REFUSED),
    HTTPStatus.TOO_MANY_REQUESTS: (Kind.LATER, Reason.RATE_LIMITED),
}


def classify(status: int, excerpt: str, retry_after: float | None = None) -> Outcome:
    """Classify by status; a 2xx is not yet a success: the channel checks its body."""
    if status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after is not None:
        return Outcome(Kind.LATER, Reason.SERVER_ERROR, status, excerpt, retry_after)
    kind, reason = _BY_STATUS.get(status, (None, None))  # type: ignore[call-overload]
    if kind is None or reason is None:
        match status // 100:
            case 2:
                kind, reason = Kind.DELIVERED, Reason.OK
            case 3:  # never followed: it would send the alert to an address that is not configured
                kind, reason = Kind.FAILED, Reason.REDIRECT
            case 4:
                kind, reason = Kind.NEVER, Reason.REFUSED
            case 5:
                kind, reason = Kind.FAILED, Reason.SERVER_ERROR
            case _:
                kind, reason = Kind.FAILED, Reason.BAD_ANSWER
    return Outcome(kind, reason, status, excerpt, retry_after if kind is Kind.LATER else None)


def refused(outcome: Outcome, reason: Reason) -> Outcome:
    """Return the outcome for a body that says that the target refuses us, whatever we send."""
    return replace(outcome, kind=Kind.HELD, reason=reason)


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Parse seconds or an HTTP date (RFC 9110, 10.2.3) into seconds; None if it is neither."""
    header = (header or "").strip()
    if not header:
        return None
    if header.isdecimal():
        return min(float(header[:12]), MAX_PAUSE_SECONDS)
    try:
        at = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    wait = (at - (now or datetime.now(UTC))).total_seconds()
    return min(max(wait, 0.0), MAX_PAUSE_SECONDS)


def text_of(event_type: str, payload: dict[str, Any]) -> str:
    """Return the text of an alert without a template."""
    text = payload.get("text")
    if isinstance(text, str) and text:
        return text
    return f"{event_type}\n{json.dumps(payload, ensure_ascii=False, indent=1)[:2900]}"
