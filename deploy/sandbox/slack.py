"""Slack: an incoming webhook, and an app's Web API, whose errors come in the body of a 200."""

import json
from collections.abc import Mapping
from itertools import count
from typing import Any

from aiohttp import hdrs

from deploy.sandbox.answer import Answer, json_object

_MOST_MESSAGES = 10_000


def webhook(_: Mapping[str, str], body: bytes) -> Answer:
    """An incoming webhook: success is 200 with the body `ok`."""
    message = json_object(body)
    if message is None:
        return Answer(400, "invalid_payload", accepted=False, content_type="text/plain")
    if not any(message.get(name) for name in ("text", "blocks", "attachments")):
        return Answer(400, "no_text", accepted=False, content_type="text/plain")
    if not _takes(message.get("blocks", [])):
        return Answer(400, "invalid_blocks", accepted=False, content_type="text/plain")
    return Answer(200, "ok", accepted=True, content_type="text/plain")


def _takes(blocks: Any) -> bool:
    """Check Block Kit's documented limits, for the blocks that our templates use."""

    def text(of: Any, limit: int, *kinds: str) -> bool:
        return of["type"] in kinds and 1 <= len(of["text"]) <= limit

    def button(one: Any) -> bool:
        sizes = len(one["action_id"]) <= 255 and len(one.get("value", "")) <= 2000
        return one["type"] == "button" and sizes and text(one["text"], 75, "plain_text")

    def block(one: Any) -> bool:
        match one["type"]:
            case "header":
                return text(one["text"], 150, "plain_text")
            case "section":
                return text(one["text"], 3000, "plain_text", "mrkdwn")
            case "context":
                return 1 <= len(one["elements"]) <= 10 and all(
                    text(element, 3000, "plain_text", "mrkdwn") for element in one["elements"]
                )
            case "actions":
                return 1 <= len(one["elements"]) <= 25 and all(map(button, one["elements"]))
            case kind:
                return bool(kind == "divider")

    try:
        return len(blocks) <= 50 and all(block(one) for one in blocks)
    except (KeyError, TypeError):
        return False


class App:
    """chat.postMessage and chat.update: channel and `ts` identify a message."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._messages: dict[tuple[str, str], dict[str, Any]] = {}

    def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        return self._write(headers, body, None)

    def update(self, headers: Mapping[str, str], body: bytes) -> Answer:
        return self._write(headers, body, str((json_object(body) or {}).get("ts")))

    def _write(self, headers: Mapping[str, str], body: bytes, ts: str | None) -> Answer:
        message = json_object(body) or {}
        channel = str(message.get("channel"))
        if not headers.get(hdrs.AUTHORIZATION, "").startswith("Bearer "):
            return refused("not_authed")
        if error := _error(message):
            return refused(error)
        if ts is not None and (channel, ts) not in self._messages:
            return refused("message_not_found")
        key = channel, ts or f"1764144000.{next(self._numbers):06}"

        def keep() -> None:
            self._messages[key] = message
            if len(self._messages) > _MOST_MESSAGES:
                del self._messages[next(iter(self._messages))]

        said = {"ok": True, "channel": channel, "ts": key[1], "text": message.get("text")}
        return Answer(200, json.dumps(said), accepted=True, keep=keep)


def _error(message: Mapping[str, Any]) -> str | None:
    if not message.get("channel"):
        return "channel_not_found"
    if not message.get("text") and not message.get("blocks"):
        return "no_text"
    return None if _takes(message.get("blocks") or []) else "invalid_blocks"


def refused(error: str) -> Answer:
    return Answer(200, json.dumps({"ok": False, "error": error}), accepted=False)
