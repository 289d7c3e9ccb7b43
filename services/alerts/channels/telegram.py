"""Telegram: a bot's sendMessage, as plain text, in which a visitor's markup means nothing."""

import json
from dataclasses import replace
from http import HTTPStatus
from typing import Literal

from pydantic import Field

from services.alerts.channels.channel import Secret, Url
from services.alerts.channels.post import HttpChannel, HttpTarget, Response
from services.alerts.channels.responses import said
from services.alerts.rules.delivery import MAX_PAUSE_SECONDS, Claimed, Kind, Outcome, Reason

_LETTERS = 4096
# Of a 400: the chat is a setting, no part of an alert.
_GONE = ("chat not found", "upgraded to a supergroup", "peer_id_invalid", "group is deactivated")


class TelegramTarget(HttpTarget):
    identity = ("token", "chat")

    channel: Literal["telegram"]
    url: Url = "https://api.telegram.org"
    token: Secret
    chat: str = Field(pattern=r"^(-?[0-9]{1,20}|@[A-Za-z0-9_]{1,32})$")


class Telegram(HttpChannel[TelegramTarget], section=TelegramTarget):
    async def send(self, job: Claimed) -> Outcome:
        text = self._templates.text(self._name, job)
        message = {
            "chat_id": self._target.chat,
            "text": text[:_LETTERS],
            "link_preview_options": {"is_disabled": True},
        }
        return read(await self._poster.post(json.dumps(message).encode(), {}))

    def _endpoint(self) -> str:
        url, token = self._target.url.rstrip("/"), self._target.token.get_secret_value()
        return f"{url}/bot{token}/sendMessage"


def read(answer: Response) -> Outcome:
    """Classify a response: only `"ok": true` is success; how long to wait is in the body."""
    outcome, data = answer.outcome, answer.data
    if outcome.kind is Kind.DELIVERED and data.get("ok") is not True:
        return said(outcome, Reason.BAD_ANSWER)
    if outcome.kind is Kind.LATER and isinstance(parameters := data.get("parameters"), dict):
        wait = parameters.get("retry_after")
        if isinstance(wait, int) and wait > 0:
            return replace(outcome, retry_after=float(min(wait, MAX_PAUSE_SECONDS)))
    if outcome.status == HTTPStatus.BAD_REQUEST:
        description = str(data.get("description")).lower()
        gone = any(words in description for words in _GONE)
        return said(outcome, Reason.GONE if gone else Reason.BAD_PAYLOAD)
    return outcome
