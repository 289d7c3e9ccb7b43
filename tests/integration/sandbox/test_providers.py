import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession
from standardwebhooks import Webhook

from services.alerts.channels import monday
from tests.support.sandbox import Sandbox

TOKEN = {"Authorization": "monday-token"}
BEARER = {"Authorization": "Bearer sms-token"}
MUTATION = (
    "mutation ($board: ID!, $name: String!, $values: JSON) "
    "{ create_item (board_id: $board, item_name: $name, column_values: $values) { id } }"
)
VARIABLES = {"board": "123", "name": "Jan Kowalski", "values": json.dumps({"email": "a@b.pl"})}


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


async def test_slack_accepts_a_message_with_ok_in_plain_text(
    client: ClientSession, sandbox: Sandbox
) -> None:
    before = datetime.now(UTC)

    async with client.post("/slack", json={"text": "Zażółć"}, headers={"X-Twice": "1"}) as answer:
        assert (answer.status, answer.content_type, await answer.text()) == (
            200,
            "text/plain",
            "ok",
        )

    [received] = await sandbox.received("slack")
    assert set(received) == {"at", "target", "headers", "body", "answered"}
    assert (received["target"], received["answered"]) == ("slack", 200)
    assert received["body"] == {"text": "Zażółć"}
    assert received["headers"]["x-twice"] == "1"
    assert before <= datetime.fromisoformat(received["at"]) <= datetime.now(UTC)


BOT = {"Authorization": "Bearer xoxb-token"}
BUTTON = {
    "type": "button",
    "action_id": "take",
    "text": {"type": "plain_text", "text": "Take it"},
    "value": "1",
}
ACTIONS = {"type": "actions", "elements": [BUTTON]}


async def test_a_slack_app_s_message_is_changed_by_its_channel_and_time(
    client: ClientSession, sandbox: Sandbox
) -> None:
    message = {"channel": "C0123", "text": "a lead", "blocks": [ACTIONS]}
    _, posted = await post(client, "slack/api/chat.postMessage", message, **BOT)
    assert posted["ok"] is True
    changed = {"channel": posted["channel"], "ts": posted["ts"], "text": "taken by Anna"}
    _, updated = await post(client, "slack/api/chat.update", changed, **BOT)
    assert (updated["ok"], updated["ts"]) == (True, posted["ts"])
    assert [each["body"] for each in await sandbox.received("slack")] == [message, changed]


async def test_a_button_is_pressed_as_slack_tells_the_app(
    client: ClientSession, sandbox: Sandbox
) -> None:
    _, posted = await post(
        client, "slack/api/chat.postMessage", {"channel": "C0123", "blocks": [ACTIONS]}, **BOT
    )
    # A webhook of its own stands for the app: it says what a request with a form is worth.
    assert await sandbox.press(f"{sandbox.url}/slack", posted, "take") == (400, "invalid_payload")
    got = (await sandbox.received("slack", refused_too=True))[-1]
    assert got["headers"]["x-slack-signature"].startswith("v0=")
    assert json.loads(got["body"]["payload"])["actions"] == [BUTTON]
    where = {"to": sandbox.url, "channel": "C0123", "ts": posted["ts"], "action": "other"}
    assert (await post(client, "slack/press", where))[0] == 404


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


async def test_a_slack_app_is_refused_in_its_own_words(
    client: ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.behave("slack", error="ratelimited")
    body = {"channel": "C1", "text": "a"}
    assert await post(client, "slack/api/chat.postMessage", body, **BOT) == (
        200,
        {"ok": False, "error": "ratelimited"},
    )


async def test_monday_finds_an_item_by_a_column_and_changes_it(client: ClientSession) -> None:
    values = json.dumps({"lead": "1", "as_of": "b"})
    created = {"query": MUTATION, "variables": {**VARIABLES, "values": values}}
    _, answer = await post(client, "monday", created, **TOKEN)
    item = answer["data"]["create_item"]["id"]
    board = next(v for v in VARIABLES.values() if str(v).isdigit())

    async def found(lead: str) -> Any:
        columns = [{"column_id": "lead", "column_values": [lead]}]
        asked = {"query": monday.FIND, "variables": {"board": board, "columns": columns}}
        _, answer = await post(client, "monday", asked, **TOKEN)
        return answer["data"]["items_page_by_column_values"]["items"]

    assert await found("2") == []
    changed = {"board": board, "item": item, "values": json.dumps({"as_of": "c"})}
    _, answer = await post(
        client, "monday", {"query": monday.CHANGE, "variables": changed}, **TOKEN
    )
    assert answer["data"]["change_multiple_column_values"]["id"] == item
    columns = [{"id": "lead", "text": "1"}, {"id": "as_of", "text": "c"}]
    assert await found("1") == [{"id": item, "column_values": columns}]


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


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/received?target=pager", 404),
        ("DELETE", "/received?target=pager", 404),
        ("GET", "/received?targets=slack", 422),
        ("GET", "/received?target=slack&all=yes", 422),
        ("GET", "/received?limit=-1", 422),
        ("GET", "/slack", 405),
        ("POST", "/teams", 404),
    ],
)
async def test_an_invalid_query_gets_a_problem(
    client: ClientSession, method: str, path: str, status: int
) -> None:
    async with client.request(method, path) as answer:
        assert (answer.status, answer.content_type) == (status, "application/problem+json")


async def test_a_body_over_one_mebibyte_is_refused(client: ClientSession) -> None:
    async with client.post("/slack", data=io.BytesIO(b"x" * (1024 * 1024 + 1))) as answer:
        assert answer.status == 413
