"""Slack: a message that an app posted is changed when its case is; a visitor's text stays text."""

import asyncio
import json
from typing import Any

import pytest

from services.alerts.channels import opened
from services.alerts.messages import CASE_UPDATE
from services.alerts.rules.delivery import Kind, Outcome, Reason
from tests.integration.alerts.cases import Cases
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.integration.alerts.test_case_http import lead, sections, with_app
from tests.support import targets
from tests.support.eventually import eventually
from tests.support.sandbox import Sandbox

RECEIPT = {"channel": "C0123", "ts": "1764144000.000001"}


@pytest.fixture
async def subject(alerts: StartAlerts, sandbox: Sandbox) -> Alerts:
    templates = {"lead.qualified": "slack-lead.j2"}
    named = sections(asks=["app"], chain=[{"to": "app", "mention": "sales", "wait": "12h"}])
    return await with_app(alerts, sandbox, named, templates=templates)


async def bodies(subject: Alerts, *, changes: bool) -> list[dict[str, Any]]:
    received = [each["body"] for each in await subject.sandbox.received("slack")]
    return [body for body in received if ("ts" in body) == changes]


async def posted(subject: Alerts, count: int) -> list[dict[str, Any]]:
    return await eventually(
        lambda: bodies(subject, changes=False), 30, so=lambda found: len(found) >= count
    )


async def test_when_somebody_takes_it_every_message_says_so_in_its_place(subject: Alerts) -> None:
    case_id = await lead(subject, phone="+48600700800", session_id="s")
    await posted(subject, 2)
    await Cases(subject.engine).take(case_id, "ewa")

    own, step = sorted(
        await eventually(
            lambda: bodies(subject, changes=True), 30, so=lambda found: len(found) == 2
        ),
        key=lambda body: -len(body["blocks"]),
    )
    assert own["ts"] != step["ts"]
    assert "600700800" in json.dumps(own["blocks"][:-2])
    assert "taken by Ewa Lis" in json.dumps(own["blocks"][-2])
    assert [each["type"] for each in step["blocks"]] == ["section", "actions"]
    assert "taken by Ewa Lis" in step["text"] == step["blocks"][0]["text"]["text"]
    for message in (own, step):
        buttons = [each for each in message["blocks"][-1]["elements"] if each["type"] == "button"]
        assert [each["text"]["text"] for each in buttons] == ["Give it back", "Won", "Lost"]
    assert len(await bodies(subject, changes=False)) == 2


async def update(sandbox: Sandbox, **options: Any) -> Outcome:
    """Change a message that was posted before."""
    payload: dict[str, Any] = {"text": "taken by Ewa Lis", "receipt": RECEIPT, "place": "x"}
    target = targets.http_target("slack_app", f"{sandbox.url}/slack/api", **options)
    async with opened("any", target, targets.TEMPLATES, targets.LOOPBACK) as channel:
        return await channel.send(targets.job(CASE_UPDATE, **payload))


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message"])
async def test_where_slack_refuses_the_change_one_message_follows(
    sandbox: Sandbox, error: str
) -> None:
    await sandbox.behave("slack", error=error, fail_next=1)
    outcome = await update(sandbox)
    assert outcome.kind is Kind.DELIVERED
    assert outcome.receipt is not None
    (followed,) = await sandbox.received("slack")
    assert followed["body"] == {"text": "taken by Ewa Lis", "channel": "C0123"}


async def test_a_change_and_what_follows_it_have_one_time_out(sandbox: Sandbox) -> None:
    """Its lease is made for one; after it another worker may send the same."""
    await sandbox.behave("slack", error="message_not_found", delay_seconds=0.6)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    outcome = await update(sandbox, timeout=1.0)
    assert (outcome.kind, outcome.reason) == (Kind.FAILED, Reason.TIMEOUT)
    assert loop.time() - begin < 1.15


async def test_a_change_that_fails_is_tried_again_and_followed_by_none(sandbox: Sandbox) -> None:
    await sandbox.behave("slack", error="internal_error", fail_next=1)
    outcome = await update(sandbox)
    assert (outcome.kind, outcome.reason) == (Kind.FAILED, Reason.BAD_ANSWER)
    assert await sandbox.received("slack") == []


@pytest.mark.parametrize("body", [{"ok": True}, {"ok": True, "ts": 5, "channel": "C1"}])
async def test_without_a_receipt_it_is_delivered_all_the_same(body: dict[str, Any]) -> None:
    reply = targets.answering(targets.answer(200, json.dumps(body).encode()))
    async with targets.listening(reply) as port:
        outcome = await targets.send(targets.http_target("slack_app", f"http://127.0.0.1:{port}"))
    assert (outcome.kind, outcome.receipt) == (Kind.DELIVERED, None)


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
