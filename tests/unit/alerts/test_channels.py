"""What a response means: one table for all channels, and the providers' own errors."""

from datetime import UTC, datetime

import pytest

from libs.common import beside
from services.alerts.channels import monday, responses, slack, sms
from services.alerts.channels.post import Response
from services.alerts.rules.delivery import MAX_PAUSE_SECONDS, Kind, Reason
from tests.support.targets import http_target

READERS = {"monday": monday.read, "slack": slack.read, "sms": sms.read}
SAID = beside.toml(__file__)


@pytest.mark.parametrize(("header", "seconds"), SAID["retry_after"])
def test_retry_after_is_seconds_or_a_date_and_bounded(header: str, seconds: float | str) -> None:
    now = datetime(2026, 11, 25, 10, tzinfo=UTC)
    found = responses.retry_after(header, now)
    assert found == {"most": MAX_PAUSE_SECONDS, "none": None}.get(str(seconds), seconds)
    assert responses.retry_after(None, now) is None


def read(provider: str, body: bytes) -> tuple[Kind, Reason]:
    outcome = READERS[provider](Response(body, responses.classify(200, "")))
    return outcome.kind, outcome.reason


@pytest.mark.parametrize(
    ("provider", "said"), [(name, row) for name in READERS for row in SAID[name]]
)
def test_a_providers_errors_inside_a_200_are_failures(provider: str, said: dict[str, str]) -> None:
    assert read(provider, said["body"].encode()) == (Kind(said["kind"]), Reason(said["reason"]))


APP = http_target("slack_app", "https://slack.example/api")


@pytest.mark.parametrize("url", SAID["slacks"] + SAID["elsewhere"])
def test_a_reply_to_a_press_goes_to_slack_and_nowhere_that_a_request_names(url: str) -> None:
    assert slack._is_slacks(APP, url) == (url in SAID["slacks"])  # type: ignore[arg-type]
