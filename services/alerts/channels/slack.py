"""Slack: an incoming webhook, or an app's chat.postMessage, whose errors are inside a 200.

It also replies to a press of a button: with a text that only that person sees, or a new message.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from yarl import URL

from libs.common.process.logs import log
from services.alerts.channels.channel import Secret, SecretUrl, Url
from services.alerts.channels.network import Network, Networks
from services.alerts.channels.post import HttpChannel, HttpTarget, Poster, Response
from services.alerts.channels.responses import said
from services.alerts.channels.templates import Templates, escape_slack, text_of
from services.alerts.messages import CASE_UPDATE
from services.alerts.rules.delivery import Button, Claimed, Kind, Outcome, Reason

# What refuses us, whatever we send: an app's words, inside a 200, and a webhook's, whose status may
# also be 400 or 200 (docs.slack.dev).
_REFUSALS = dict.fromkeys((
    "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired",
    "missing_scope", "no_permission", "not_in_channel", "ekm_access_denied", "access_denied",
    "accesslimited", "not_allowed_token_type", "org_login_required", "restricted_action",
    "team_access_not_granted", "enterprise_is_restricted", "invalid_token", "action_prohibited",
    "posting_to_general_channel_denied",
), Reason.UNAUTHORIZED) | dict.fromkeys((
    "channel_not_found", "is_archived", "channel_is_archived", "no_service", "no_service_id",
    "no_team", "team_disabled",
), Reason.GONE)  # fmt: skip
_BAD = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_too_long", "no_text"})

_SECTION, _MESSAGE = 3000, 40_000  # characters: Slack's limits
_UNCHANGEABLE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})


class SlackTarget(HttpTarget):
    """A webhook, or an app with a bot token, whose messages have buttons."""

    needs = "slack"
    identity = ("url", "token", "post_to")

    channel: Literal["slack"]
    url: SecretUrl = SecretStr("")
    token: Secret = SecretStr("")
    post_to: str = Field("", pattern=r"^([CGD][A-Z0-9]{2,20})?$")
    team: str = Field("", pattern=r"^([TE][A-Z0-9]{2,20})?$")
    api: Url = "https://slack.com/api"

    @property
    def answerable(self) -> bool:
        return bool(self.token.get_secret_value())

    @model_validator(mode="after")
    def _is_a_webhook_or_an_app(self) -> Self:
        app = (self.token.get_secret_value(), self.post_to, self.team)
        if not (all(app) if not self.url.get_secret_value() else not any(app)):
            raise ValueError("needs url (a webhook), or token, post_to and team (an app)")
        return self


class Slack(HttpChannel[SlackTarget], section=SlackTarget):
    @cached_property
    def _changer(self) -> Poster:
        return Poster(self._target, f"{self._target.api}/chat.update", self._network)

    async def send(self, job: Claimed) -> Outcome:
        if token := self._target.token.get_secret_value():
            return await self._send_as_app(job, {"Authorization": f"Bearer {token}"}, self._end())
        answer = await self._poster.post(_body(self._templates, job), {})
        text = answer.body.strip().decode("ascii", "replace")
        if (reason := _REFUSALS.get(text)) is not None:
            return said(answer.outcome, reason)
        if answer.outcome.kind is Kind.DELIVERED and text != "ok":
            return said(answer.outcome, Reason.BAD_ANSWER)
        return answer.outcome

    async def _send_as_app(self, job: Claimed, headers: Mapping[str, str], until: float) -> Outcome:
        """Post the message; an update changes the one that it is about, where Slack allows it."""
        if job.event_type == CASE_UPDATE and (receipt := job.payload["receipt"]):
            body = json.dumps({**changed(self._templates, job), **receipt}).encode()
            answer = await self._changer.post(body, headers, until)
            error = str(answer.data.get("error"))
            # Gone: the channel of that message.
            if error not in _UNCHANGEABLE and _REFUSALS.get(error) is not Reason.GONE:
                return read(answer)
        message = _with_buttons(json.loads(_body(self._templates, job)), job)
        message["channel"] = self._target.post_to
        return read(await self._poster.post(json.dumps(message).encode(), headers, until))

    async def close(self) -> None:
        await self._changer.close()
        await super().close()

    def _endpoint(self) -> str:
        return self._target.url.get_secret_value() or f"{self._target.api}/chat.postMessage"


def changed(templates: Templates, job: Claimed) -> dict[str, Any]:
    """Return an updated message: an alert's own message keeps its content above the news."""
    news: dict[str, Any] = json.loads(_body(templates, job))
    if (alert := job.payload.get("alert")) is None:
        return _with_buttons({"blocks": [], **news}, job)
    own = replace(job, **alert)
    message: dict[str, Any] = {"blocks": [], **json.loads(_body(templates, own))}
    if message["blocks"]:
        said = {"type": "mrkdwn", "text": f"*{news['text']}*"}
        message["blocks"].append({"type": "context", "elements": [said]})
    else:
        message["text"] += f"\n{news['text']}"
    return _with_buttons(message, job)


def _body(templates: Templates, job: Claimed) -> bytes:
    rendered = templates.render(job.target, job)
    if rendered is not None:
        return rendered.encode()
    text = text_of(job)
    # A visitor may have written it: `<!channel>` notifies all, `<https://…|Open>` deceives.
    marked_up = job.payload.get("mrkdwn") is True
    return json.dumps({"text": text if marked_up else escape_slack(text)}).encode()


def _with_buttons(message: dict[str, Any], job: Claimed) -> dict[str, Any]:
    """Put the job's buttons below the message; beside blocks, `text` is only the notification."""
    if not job.buttons:
        return message
    text = message.get("text", "")
    blocks = message.get("blocks") or [
        {"type": "section", "text": {"type": "mrkdwn", "text": text[start : start + _SECTION]}}
        for start in range(0, min(len(text), _MESSAGE), _SECTION)
    ]
    elements = list(map(_element, job.buttons))
    return {**message, "blocks": [*blocks, {"type": "actions", "elements": elements}]}


def _element(button: Button) -> dict[str, Any]:
    named: dict[str, Any] = {"action_id": button.action}
    if not button.menu:
        return named | {"type": "button", "text": _plain(button.label), "value": button.value}
    items = [{"text": _plain(text), "value": value} for text, value in button.menu]
    return named | {
        "type": "static_select",
        "placeholder": _plain(button.label),
        "options": items,
    }


def _plain(text: str) -> dict[str, str]:
    return {"type": "plain_text", "text": text}


def read(answer: Response) -> Outcome:
    """Classify an app's response: only `"ok": true` is success."""
    outcome = answer.outcome
    if outcome.kind is not Kind.DELIVERED:
        return outcome
    data = answer.data
    if data.get("ok") is not True:
        error = str(data.get("error"))
        bad = Reason.BAD_PAYLOAD if error in _BAD else Reason.BAD_ANSWER
        return said(outcome, _REFUSALS.get(error, bad))
    receipt: dict[str, Any] = {key: data.get(key) for key in ("channel", "ts")}
    named = all(isinstance(value, str) for value in receipt.values())
    return replace(outcome, receipt=receipt if named else None)


HOOKS = URL("https://hooks.slack.com")
SECONDS = 0.8
"""Slack waits 3 s for the response to a press; the answer may have taken 2 of them."""


def private(text: str) -> dict[str, Any]:
    """Return a message that only the person who pressed sees."""
    return {"response_type": "ephemeral", "replace_original": False, "text": escape_slack(text)}


def replacing(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message that replaces the one with the button."""
    return {"replace_original": True, **message}


async def reply(
    target: SlackTarget, url: str, message: Mapping[str, Any], networks: Networks
) -> None:
    """Post a message to a press's `response_url`; once, because the person can press again.

    :param url: nothing is sent unless it is at Slack, or where the target's API is
    """
    if not _is_slacks(target, url):
        log.warning("slack.foreign_response_url")
        return
    network = Network("slack replies", networks, 1)
    poster = Poster(target.model_copy(update={"timeout": SECONDS}), url, network)
    try:
        sent = await poster.post(json.dumps(message).encode(), {})
    finally:
        await poster.close()
        await network.close()
    log.info("slack.replied", outcome=sent.outcome.kind, reason=sent.outcome.reason)


def _is_slacks(target: SlackTarget, url: str) -> bool:
    try:
        return URL(url).origin() in {HOOKS, URL(target.api).origin()}
    except ValueError:
        return False
