"""Slack: an incoming webhook, or an app's chat.postMessage, whose errors are inside a 200."""

import json
from dataclasses import replace

from services.alerts.alert import Claimed, Kind, Outcome, Reason
from services.alerts.channels.post import HttpChannel, Response
from services.alerts.channels.responses import text_of
from services.alerts.config import SlackTarget
from services.alerts.templates import escape_slack

_UNAUTHORIZED = frozenset({
    *("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired"),
    *("missing_scope", "no_permission", "not_in_channel", "ekm_access_denied"),
})  # fmt: skip
_GONE = frozenset({"channel_not_found", "is_archived"})
_BAD = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_too_long", "no_text"})


class Slack(HttpChannel[SlackTarget]):
    async def send(self, job: Claimed) -> Outcome:
        body = self._body(job)
        if token := self._target.token.get_secret_value():
            message = json.loads(body) | {"channel": self._target.post_to}
            headers = {"Authorization": f"Bearer {token}"}
            return read(await self._poster.post(json.dumps(message).encode(), headers))
        answer = await self._poster.post(body, {})
        if answer.outcome.kind is Kind.DELIVERED and answer.body.strip() != b"ok":
            return replace(answer.outcome, kind=Kind.FAILED, reason=Reason.BAD_ANSWER)
        return answer.outcome

    def _endpoint(self) -> str:
        return self._target.url.get_secret_value() or f"{self._target.api}/chat.postMessage"

    def _body(self, job: Claimed) -> bytes:
        rendered = self._templates.render(self._name, job)
        if rendered is not None:
            return rendered.encode()
        text = text_of(job.event_type, job.payload)
        # A visitor may have written it: `<!channel>` notifies all, `<https://…|Open>` deceives.
        marked_up = job.payload.get("mrkdwn") is True
        return json.dumps({"text": text if marked_up else escape_slack(text)}).encode()


def read(answer: Response) -> Outcome:
    """Classify an app's response: only `"ok": true` is success."""
    outcome = answer.outcome
    if outcome.kind is not Kind.DELIVERED:
        return outcome
    try:
        data = json.loads(answer.body)
        if data["ok"] is True:
            return outcome
        error = str(data.get("error"))
    except (ValueError, TypeError, LookupError, RecursionError):
        error = ""
    if error in _UNAUTHORIZED:
        return replace(outcome, kind=Kind.NEVER, reason=Reason.UNAUTHORIZED)
    if error in _GONE:
        return replace(outcome, kind=Kind.NEVER, reason=Reason.GONE)
    if error in _BAD:
        return replace(outcome, kind=Kind.NEVER, reason=Reason.BAD_PAYLOAD)
    return replace(outcome, kind=Kind.FAILED, reason=Reason.BAD_ANSWER)
