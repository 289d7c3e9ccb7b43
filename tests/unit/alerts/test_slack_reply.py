"""Where a reply to a press may go: to Slack, never to an address that a request names."""

import pytest

from services.alerts.channels.slack import _is_slacks
from tests.support.targets import http_target

TARGET = http_target("slack_app", "https://slack.example/api")


ELSEWHERE = r"""
/actions
http://hooks.slack.com/actions/T1/1/a
https://hooks.slack.com:8443/actions
https://hooks.slack.com:x/actions
https://hooks.slack.com.evil.example/actions
https://hooks.slack.com@evil.example/actions
https://evil.example/https://hooks.slack.com/
https://evil.example#@hooks.slack.com/
https://evil.example\@hooks.slack.com/
https://slack.example:444/api
file:///etc/passwd
//hooks.slack.com/actions
"""


@pytest.mark.parametrize("path", ["hooks.slack.com/actions/T1/1/a", "slack.example/response/1"])
def test_a_reply_goes_to_slack(path: str) -> None:
    assert _is_slacks(TARGET, f"https://{path}")  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["", *ELSEWHERE.split()])
def test_a_reply_goes_nowhere_else(url: str) -> None:
    assert not _is_slacks(TARGET, url)  # type: ignore[arg-type]
