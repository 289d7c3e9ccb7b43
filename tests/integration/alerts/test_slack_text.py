"""A visitor's text stays text in Slack, unless the sender marks it as markup."""

from typing import Any

import pytest

from tests.integration.alerts.conftest import StartAlerts

MARKUP = "<!channel> <https://evil.example.com|Open> & *bold*"
ESCAPED = "&lt;!channel&gt; &lt;https://evil.example.com|Open&gt; &amp; *bold*"


@pytest.mark.parametrize(
    ("said", "shown"),
    [({}, ESCAPED), ({"mrkdwn": "yes"}, ESCAPED), ({"mrkdwn": True}, MARKUP)],
)
async def test_text_without_a_template_is_escaped_unless_marked_as_markup(
    alerts: StartAlerts, said: dict[str, Any], shown: str
) -> None:
    subject = await alerts()
    await subject.until(await subject.accept(payload={"text": MARKUP, **said}), "delivered")
    (got,) = await subject.sandbox.received("slack")
    assert got["body"] == {"text": shown}
