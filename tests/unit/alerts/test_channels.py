"""What a response means: one table for all channels, and the providers' own errors."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.alerts.channels import monday, responses, slack, sms
from services.alerts.channels.post import Response
from services.alerts.rules.delivery import MAX_PAUSE_SECONDS, Kind, Reason


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


READERS = {"monday": monday.read, "slack": slack.read, "sms": sms.read}
SAID = tomllib.loads(Path(__file__).with_name("channels.toml").read_text(encoding="utf-8"))


def read(provider: str, body: bytes) -> tuple[Kind, Reason]:
    outcome = READERS[provider](Response(body, responses.classify(200, "")))
    return outcome.kind, outcome.reason


@pytest.mark.parametrize(
    ("provider", "said"), [(name, row) for name, rows in SAID.items() for row in rows]
)
def test_a_providers_errors_inside_a_200_are_failures(provider: str, said: dict[str, str]) -> None:
    assert read(provider, said["body"].encode()) == (Kind(said["kind"]), Reason(said["reason"]))
