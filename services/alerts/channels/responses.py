"""The meaning of an HTTP response, unless the provider has its own protocol."""

from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from services.alerts.rules.delivery import MAX_PAUSE_SECONDS, Kind, Outcome, Reason

_BY_CLASS = {
    2: (Kind.DELIVERED, Reason.OK),
    3: (Kind.FAILED, Reason.REDIRECT),  # never followed: it would lead to another address
    4: (Kind.NEVER, Reason.REFUSED),
    5: (Kind.FAILED, Reason.SERVER_ERROR),
}
_BY_STATUS: dict[int, tuple[Kind, Reason]] = {
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
    other = _BY_CLASS.get(status // 100, (Kind.FAILED, Reason.BAD_ANSWER))
    kind, reason = _BY_STATUS.get(status, other)
    return Outcome(kind, reason, status, excerpt, retry_after if kind is Kind.LATER else None)


_BY_REASON = {
    Reason.UNAUTHORIZED: Kind.HELD,
    Reason.GONE: Kind.HELD,
    Reason.BAD_PAYLOAD: Kind.NEVER,
    Reason.BAD_ANSWER: Kind.FAILED,
}


def said(outcome: Outcome, reason: Reason) -> Outcome:
    """Return the outcome for a body that says more than the status."""
    return replace(outcome, kind=_BY_REASON[reason], reason=reason)


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
