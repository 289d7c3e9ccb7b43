"""What a response means: one table for all channels, and the providers' own errors."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from services.alerts.channels import monday, responses, slack, sms
from services.alerts.channels.post import Response
from services.alerts.rules.delivery import MAX_PAUSE_SECONDS, Kind, Outcome, Reason


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),  # a field may end in white space (RFC 9110, 5.5)
        ("999999999999999999", MAX_PAUSE_SECONDS),
        ("Wed, 25 Nov 2026 10:00:30 GMT", 30.0),
        ("Wed, 25 Nov 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("Wed, 25 Nov 99999999999 10:00:30 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(
    header: str | None, seconds: float | None
) -> None:
    now = datetime(2026, 11, 25, 10, tzinfo=UTC)
    assert responses.retry_after(header, now) == seconds


def answered(body: Any, status: int = 200) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(raw, responses.classify(status, ""))


def said(outcome: Outcome) -> tuple[Kind, Reason]:
    return outcome.kind, outcome.reason


def errors(code: str, **extensions: Any) -> dict[str, Any]:
    return {"data": None, "errors": [{"message": "m", "extensions": {"code": code, **extensions}}]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": {"create_item": {"id": "1"}}}, (Kind.DELIVERED, Reason.OK)),
        ({"data": {"create_item": None}}, (Kind.FAILED, Reason.BAD_ANSWER)),
        (errors("ColumnValueException"), (Kind.NEVER, Reason.BAD_PAYLOAD)),
        (errors("InvalidBoardIdException"), (Kind.HELD, Reason.GONE)),
        (errors("UserUnauthorizedException"), (Kind.HELD, Reason.UNAUTHORIZED)),
        (errors("USER_UNAUTHORIZED"), (Kind.HELD, Reason.UNAUTHORIZED)),
        (errors("USER_ACCESS_DENIED"), (Kind.HELD, Reason.UNAUTHORIZED)),
        ({"errors": [{"extensions": {"status_code": 401}}]}, (Kind.HELD, Reason.UNAUTHORIZED)),
        ({"errors": [{"extensions": {"status_code": [403]}}]}, (Kind.FAILED, Reason.BAD_ANSWER)),
        (
            errors("COMPLEXITY_BUDGET_EXHAUSTED", retry_in_seconds=9),
            (Kind.LATER, Reason.RATE_LIMITED),
        ),
        (
            errors("COMPLEXITY_BUDGET_EXHAUSTED", retry_in_seconds=10**400),
            (Kind.LATER, Reason.RATE_LIMITED),
        ),
        (errors("INTERNAL_SERVER_ERROR"), (Kind.FAILED, Reason.BAD_ANSWER)),
        ({"data": {"create_item": {"id": "1"}}, "errors": [{}]}, (Kind.FAILED, Reason.BAD_ANSWER)),
        ({"error_code": "ComplexityException"}, (Kind.FAILED, Reason.BAD_ANSWER)),
        ({"errors": ["Not Authenticated"]}, (Kind.HELD, Reason.UNAUTHORIZED)),
        (b"<html>", (Kind.FAILED, Reason.BAD_ANSWER)),
        (b"[" * 60_000, (Kind.FAILED, Reason.BAD_ANSWER)),
        ([], (Kind.FAILED, Reason.BAD_ANSWER)),
    ],
)
def test_mondays_errors_inside_a_200_are_failures(body: Any, expected: tuple[Kind, Reason]) -> None:
    assert said(monday.read(answered(body))) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"ok": True, "ts": "1.2", "channel": "C1"}, (Kind.DELIVERED, Reason.OK)),
        ({"ok": False, "error": "token_revoked"}, (Kind.HELD, Reason.UNAUTHORIZED)),
        ({"ok": False, "error": "channel_not_found"}, (Kind.HELD, Reason.GONE)),
        ({"ok": False, "error": "invalid_blocks"}, (Kind.NEVER, Reason.BAD_PAYLOAD)),
        ({"ok": False, "error": "internal_error"}, (Kind.FAILED, Reason.BAD_ANSWER)),
        ({"ok": 1}, (Kind.FAILED, Reason.BAD_ANSWER)),
        (b"ok", (Kind.FAILED, Reason.BAD_ANSWER)),
        (b"[" * 60_000, (Kind.FAILED, Reason.BAD_ANSWER)),
    ],
)
def test_a_slack_apps_errors_inside_a_200_are_failures(
    body: Any, expected: tuple[Kind, Reason]
) -> None:
    assert said(slack.read(answered(body))) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"count": 1, "list": [{"status": "QUEUE"}]}, (Kind.DELIVERED, Reason.OK)),
        ({"error": 101, "message": "m"}, (Kind.HELD, Reason.UNAUTHORIZED)),
        ({"error": 103, "message": "m"}, (Kind.HELD, Reason.UNAUTHORIZED)),
        ({"error": 13, "message": "m"}, (Kind.NEVER, Reason.BAD_PAYLOAD)),
        ({"error": 201, "message": "m"}, (Kind.FAILED, Reason.BAD_ANSWER)),
        ({"count": 0, "list": []}, (Kind.FAILED, Reason.BAD_ANSWER)),
        (b"OK", (Kind.FAILED, Reason.BAD_ANSWER)),
        (b'{"error": Infinity}', (Kind.FAILED, Reason.BAD_ANSWER)),
        (b"[" * 60_000, (Kind.FAILED, Reason.BAD_ANSWER)),
    ],
)
def test_an_sms_providers_errors_inside_a_200_are_failures(
    body: Any, expected: tuple[Kind, Reason]
) -> None:
    assert said(sms.read(answered(body))) == expected
