"""Slack: an incoming webhook, and an app's Web API, whose errors come in the body of a 200."""

import hashlib
import hmac
import html
import json
import re
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from aiohttp import ClientSession, hdrs, web
from markupsafe import Markup, escape
from pydantic import Field

from deploy.sandbox.behaviour import Answer, json_object
from deploy.sandbox.mailpit import PAGE_POLICY, PAGES, html_response
from libs.common.http.application import Model, Problem, json_response, parse

_MOST_MESSAGES = 10_000
_SHOWN = 100
_RESPONSES = 5
"""How often Slack takes a message at one `response_url`."""
SIGNING_SECRET = "signing-secret-of-the-sandbox"  # noqa: S105 - no one else's

_PIECES = re.compile(r"([^<]+|<(?![^<>]*>))|<([^<>]*)>")
_MARKS = [
    (re.compile(rf"(?<!\w){mark}([^{mark}\n]+){mark}(?!\w)"), rf"<{tag}>\1</{tag}>")
    for mark, tag in ((r"\*", "strong"), ("_", "em"), ("~", "s"), ("`", "code"))
]
_LINKS = ("http://", "https://", "mailto:", "tel:")

_TABLE = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS message (key TEXT UNIQUE, at TEXT DEFAULT (datetime()), message TEXT);
"""
_KEEP = """
INSERT INTO message (key, message) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET message = excluded.message
"""


class Messages:
    """What Slack shows, by channel and `ts`; in a file it outlives a restart."""

    def __init__(self, file: Path | None) -> None:
        self._database = sqlite3.connect(file or ":memory:", isolation_level=None)
        self._database.executescript(_TABLE)

    def get(self, *key: str) -> dict[str, Any] | None:
        asked = "SELECT message FROM message WHERE key = ?"
        row = self._database.execute(asked, [json.dumps(key)]).fetchone()
        return row and json_object(row[0])

    def keep(self, *key: str, message: dict[str, Any]) -> None:
        kept = self._database.execute(_KEEP, [json.dumps(key), json.dumps(message)])
        old = (kept.lastrowid or 0) - _MOST_MESSAGES
        self._database.execute("DELETE FROM message WHERE rowid <= ?", [old])

    def newest(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return channel, time (UTC) and message."""
        asked = "SELECT key, at, message FROM message ORDER BY rowid DESC LIMIT ?"
        rows = self._database.execute(asked, [_SHOWN])
        return [(json.loads(key)[0], at, json_object(message) or {}) for key, at, message in rows]


def webhook(_: web.Request, body: bytes) -> Answer:
    """An incoming webhook: success is 200 with the body `ok`."""
    message = json_object(body)
    if message is None:
        return Answer(400, "invalid_payload", accepted=False, content_type="text/plain")
    if not any(message.get(name) for name in ("text", "blocks", "attachments")):
        return Answer(400, "no_text", accepted=False, content_type="text/plain")
    if not _takes(message.get("blocks", [])):
        return Answer(400, "invalid_blocks", accepted=False, content_type="text/plain")
    return Answer(200, "ok", accepted=True, content_type="text/plain")


def _text(of: Any, limit: int, *kinds: str) -> bool:
    return of["type"] in kinds and 1 <= len(of["text"]) <= limit


def _element(one: Any) -> bool:
    """Check a button, or a menu with its items."""
    if not 1 <= len(one["action_id"]) <= 255:
        return False
    if one["type"] == "button":
        return _text(one["text"], 75, "plain_text") and len(one.get("value", "")) <= 2000
    items = [
        _text(item["text"], 75, "plain_text") and 1 <= len(item["value"]) <= 150
        for item in one["options"]
    ]
    named = _text(one["placeholder"], 150, "plain_text")
    return one["type"] == "static_select" and named and 1 <= len(items) <= 100 and all(items)


def _takes(blocks: Any) -> bool:
    """Check Block Kit's documented limits, for the blocks that our templates use."""

    def block(one: Any) -> bool:
        match one["type"]:
            case "header":
                return _text(one["text"], 150, "plain_text")
            case "section":
                return _text(one["text"], 3000, "plain_text", "mrkdwn")
            case "context":
                return 1 <= len(one["elements"]) <= 10 and all(
                    _text(element, 3000, "plain_text", "mrkdwn") for element in one["elements"]
                )
            case "actions":
                return 1 <= len(one["elements"]) <= 25 and all(map(_element, one["elements"]))
            case kind:
                return bool(kind == "divider")

    try:
        return len(blocks) <= 50 and all(block(one) for one in blocks)
    except (KeyError, TypeError):
        return False


class Press(Model):
    """A press of a button or menu: in which message, by whom, and how the request is signed."""

    to: str
    """The interactivity request URL."""
    channel: str
    ts: str
    action: str
    item: str | None = None
    """The text of a menu's item."""
    value: str | None = None
    """Another value than the button or item has."""
    user: str = "U012ABC"
    name: str = "anna.nowak"
    team: str = "T0123"
    user_team: str | None = None
    trigger_id: str = Field(default_factory=lambda: uuid4().hex)
    response_url: str | None = None
    secret: str = SIGNING_SECRET
    age: int = 0


def response(_: web.Request, body: bytes) -> Answer:
    """A `response_url`: whoever pressed a button sees the text."""
    text = (json_object(body) or {}).get("text")
    return Answer(200 if text else 400, "ok", accepted=bool(text), content_type="text/plain")


class App:
    """chat.postMessage and chat.update: channel and `ts` identify a message."""

    def __init__(self, messages: Messages) -> None:
        self._began, self._numbers = int(time.time()), count(1)
        self._messages = messages
        self._response_urls: dict[str, tuple[tuple[str, str], int]] = {}
        """The message of each, and how often it may still be used."""

    def post(self, request: web.Request, body: bytes) -> Answer:
        return self._write(request, body, None)

    def update(self, request: web.Request, body: bytes) -> Answer:
        return self._write(request, body, str((json_object(body) or {}).get("ts")))

    def webhook(self, request: web.Request, body: bytes) -> Answer:
        message = json_object(body) or {}
        keep = partial(self._messages.keep, "", self._ts(), message=message)
        return replace(webhook(request, body), keep=keep)

    def _ts(self) -> str:
        return f"{self._began}.{next(self._numbers):06}"

    async def page(self, _: web.Request) -> web.Response:
        """Show what Slack got, as Slack does; nothing on it acts."""
        messages = self._messages.newest()
        page = PAGES.get_template("slack.html").render(messages=messages, mrkdwn=_mrkdwn)
        return html_response(page.encode("utf-8", "replace").decode(), PAGE_POLICY)

    async def press(self, request: web.Request) -> web.Response:
        """Press a button of a message: notify its app, and return what the app answered."""
        press = await parse(request, Press)
        key = press.channel, press.ts
        message = self._messages.get(*key) or {}
        elements = {
            element["action_id"]: element
            for block in message.get("blocks") or []
            if block["type"] == "actions"
            for element in block["elements"]
        }
        if press.action not in elements:
            raise Problem(404, detail=f"no such button; the message has {', '.join(elements)}")
        token = uuid4().hex
        _keep(self._response_urls, token, (key, _RESPONSES))
        url = press.response_url or f"http://{request.host}/slack/response/{token}"
        body = _interaction(press, message, _action(press, elements[press.action]), url)
        sent = {hdrs.CONTENT_TYPE: "application/x-www-form-urlencoded", **_signature(press, body)}
        async with (
            ClientSession() as session,
            session.post(press.to, data=body, headers=sent) as got,
        ):
            return json_response({"status": got.status, "body": await got.text()})

    def respond(self, request: web.Request, body: bytes) -> Answer:
        """A press's `response_url`: a text for its person, or a new version of the message."""
        message, token = json_object(body) or {}, request.match_info["token"]
        key, left = self._response_urls.get(token, (("", ""), 0))
        if not left:
            return Answer(404, '{"ok":false,"error":"used_url"}', accepted=False)
        self._response_urls[token] = key, left - 1
        if not message.get("replace_original"):
            return response(request, body)
        if error := _error({**message, "channel": key[0]}):
            return Answer(400, json.dumps({"ok": False, "error": error}), accepted=False)
        keep = partial(self._messages.keep, *key, message=message)
        return Answer(200, '{"ok":true}', accepted=True, keep=keep)

    def _write(self, request: web.Request, body: bytes, ts: str | None) -> Answer:
        message = json_object(body) or {}
        channel = str(message.get("channel"))
        if not request.headers.get(hdrs.AUTHORIZATION, "").startswith("Bearer "):
            return refused("not_authed")
        if error := _error(message):
            return refused(error)
        if ts is not None and self._messages.get(channel, ts) is None:
            return refused("message_not_found")
        key = channel, ts or self._ts()
        keep = partial(self._messages.keep, *key, message=message)
        said = {"ok": True, "channel": channel, "ts": key[1], "text": message.get("text")}
        return Answer(200, json.dumps(said), accepted=True, keep=keep)


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    if len(kept) > _MOST_MESSAGES:
        del kept[next(iter(kept))]


def _action(press: Press, element: Mapping[str, Any]) -> dict[str, Any]:
    """Return a button or a menu with its chosen item, as an interaction names them."""
    if element["type"] == "button":
        return {**element, "value": press.value or element.get("value")}
    items = {item["text"]["text"]: item for item in element["options"]}
    if press.item not in items:
        raise Problem(404, detail=f"no such item; the menu has {', '.join(items)}")
    item = items[press.item]
    chosen = {**item, "value": press.value or item["value"]}
    return {**element, "selected_option": chosen}


def _interaction(press: Press, message: Any, button: Any, response_url: str) -> bytes:
    payload = {
        "type": "block_actions",
        "user": {
            "id": press.user,
            "name": press.name,
            "username": press.name,
            "team_id": press.user_team or press.team,
        },
        "team": {"id": press.team, "domain": "sandbox"},
        "enterprise": None,
        "channel": {"id": press.channel, "name": "leads"},
        "message": message | {"ts": press.ts},
        "trigger_id": press.trigger_id,
        "response_url": response_url,
        "actions": [button],
    }
    return urlencode({"payload": json.dumps(payload)}).encode()


def _signature(press: Press, body: bytes) -> dict[str, str]:
    timestamp = str(int(time.time()) - press.age)
    signed = b"v0:%s:%s" % (timestamp.encode(), body)
    digest = hmac.new(press.secret.encode(), signed, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={digest}"}


def _error(message: Mapping[str, Any]) -> str | None:
    if not message.get("channel"):
        return "channel_not_found"
    if not message.get("text") and not message.get("blocks"):
        return "no_text"
    return None if _takes(message.get("blocks") or []) else "invalid_blocks"


def refused(error: str) -> Answer:
    return Answer(200, json.dumps({"ok": False, "error": error}), accepted=False)


def _mrkdwn(text: str) -> Markup:
    """Render Slack's *bold*, _italic_, ~struck~, `code` and <url|label>."""
    links, said = [], ""  # a mark may be around a link, and none counts within its address
    for piece in _PIECES.findall(text.replace("\0", "")):
        plain, named = map(html.unescape, piece)
        url, _, label = named.partition("|")
        if url.startswith(_LINKS):
            links.append(Markup('<a href="{}" rel="noreferrer">{}</a>').format(url, label or url))
        said += "\0" if url.startswith(_LINKS) else str(escape(plain or label or named))
    for mark, tagged in _MARKS:
        said = mark.sub(tagged, said)
    shown = iter(links)
    return Markup(re.sub("\0", lambda _: next(shown), said))  # noqa: S704 - escaped
