import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession, ClientTimeout
from standardwebhooks import Webhook

from tests.support.eventually import eventually
from tests.support.sandbox import Sandbox


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[ClientSession]:
    async with ClientSession(sandbox.url) as session:
        yield session


async def post(client: ClientSession, target: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with client.post(f"/{target}", json=body, headers=headers) as answer:
        return answer.status, json.loads(await answer.text())


ROWS: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__)
    .with_name("providers.yaml")
    .read_text(encoding="utf-8")
    .replace("LONG", "x" * 256)
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['to']} {row['says']}")
async def test_a_provider_answers_as_the_real_one(
    client: ClientSession, sandbox: Sandbox, row: dict[str, Any]
) -> None:
    sent: dict[str, Any] = {"json": row.get("json"), "data": row.get("raw", row.get("form"))}
    sent["headers"] = {"Authorization": row["key"]} if "key" in row else {}
    async with client.post(f"/{row['to']}", **sent) as answer:
        assert (answer.status, row["says"] in await answer.text()) == (row["status"], True)
    target = row["to"].partition("/")[0]
    (recorded,) = await sandbox.received(target, refused_too=True)
    assert recorded["answered"] == row["status"]
    taken = [each["body"] for each in await sandbox.received(target)]
    assert taken == ([row.get("json", row.get("form"))] if row.get("taken") else [])


BOT = {"Authorization": "Bearer xoxb-token"}
BUTTON = {
    "type": "button",
    "action_id": "take",
    "text": {"type": "plain_text", "text": "Take it"},
    "value": "1",
}
ACTIONS = {"type": "actions", "elements": [BUTTON]}


ITEM = {"text": {"type": "plain_text", "text": "In an hour"}, "value": "1 hour"}
MENU = {
    "type": "static_select",
    "action_id": "later",
    "placeholder": {"type": "plain_text", "text": "Later"},
    "options": [ITEM],
}


async def test_the_item_of_a_menu_and_a_url_to_reply_to_are_told(
    client: ClientSession, sandbox: Sandbox
) -> None:
    message = {"channel": "C0123", "blocks": [{"type": "actions", "elements": [MENU]}]}
    _, posted = await post(client, "slack/api/chat.postMessage", message, **BOT)
    app = f"{sandbox.url}/slack"
    await sandbox.press(app, posted, "later", item="In an hour")
    await sandbox.press(app, posted, "later", item="In an hour", value="forged")
    presses = [
        json.loads(each["body"]["payload"])
        for each in await sandbox.received("slack", refused_too=True)
        if "payload" in each["body"]
    ]
    chosen = [press["actions"][0]["selected_option"] for press in presses]
    assert chosen == [ITEM, {**ITEM, "value": "forged"}]
    where = {"to": app, "channel": "C0123", "ts": posted["ts"], "action": "later"}
    assert (await post(client, "slack/press", {**where, "item": "Never"}))[0] == 404
    url = presses[0]["response_url"].removeprefix(f"{sandbox.url}/")
    invalid = {"replace_original": True, "blocks": [{"type": "actions", "elements": []}]}
    assert (await post(client, url, invalid))[0] == 400
    taken = {"replace_original": True, "text": "taken", "blocks": [ACTIONS]}
    assert await post(client, url, taken) == (200, {"ok": True})
    await sandbox.press(app, posted, "take")  # the message has this button now
    for _ in range(3):
        assert (await post(client, url, taken))[0] == 200
    assert await post(client, url, taken) == (404, {"ok": False, "error": "used_url"})


async def test_a_signed_webhook_is_taken_and_a_forged_one_refused(
    client: ClientSession, sandbox: Sandbox
) -> None:
    now = datetime.now(UTC)
    body = json.dumps({"id": "1"})
    headers = {
        "webhook-id": "1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(sandbox.webhook_secret).sign("1", now, body),
    }
    old = now - timedelta(minutes=6)
    forgeries = [
        ({}, body),
        (headers, body.replace("1", "2")),
        ({**headers, "webhook-signature": "v1,%%%"}, body),
        ({**headers, "webhook-signature": "nonsense"}, body),
        ({**headers, "webhook-timestamp": str(int(old.timestamp()))}, body),
    ]

    async with client.post("/webhook", data=body, headers=headers) as answer:
        assert answer.status == 200
    for forged, content in forgeries:
        async with client.post("/webhook", data=content, headers=forged) as answer:
            assert answer.status == 401

    assert len(await sandbox.received("webhook")) == 1
    assert len(await sandbox.received("webhook", refused_too=True)) == 1 + len(forgeries)


async def test_a_message_whose_client_leaves_during_a_delay_is_received(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", delay_seconds=60)
    with pytest.raises(TimeoutError):
        await client.post("/slack", json={"text": "hi"}, timeout=ClientTimeout(total=1))
    received = await eventually(lambda: sandbox.received("slack"))
    assert [item["answered"] for item in received] == [None]
