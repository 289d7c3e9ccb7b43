"""Slack's incoming webhook: the response to a successful POST is 200 with the body `ok`."""

import json
from dataclasses import replace

from services.alerts.alert import Claimed, Kind, Outcome, Reason
from services.alerts.channels.post import HttpChannel
from services.alerts.channels.responses import text_of
from services.alerts.config import SlackTarget
from services.alerts.templates import escape_slack


class Slack(HttpChannel[SlackTarget]):
    async def send(self, job: Claimed) -> Outcome:
        answer = await self._poster.post(self._body(job), {})
        if answer.outcome.kind is Kind.DELIVERED and answer.body.strip() != b"ok":
            return replace(answer.outcome, kind=Kind.FAILED, reason=Reason.BAD_ANSWER)
        return answer.outcome

    def _body(self, job: Claimed) -> bytes:
        rendered = self._templates.render(self._name, job)
        if rendered is not None:
            return rendered.encode()
        text = text_of(job.event_type, job.payload)
        # A visitor may have written it: `<!channel>` notifies all, `<https://…|Open>` deceives.
        marked_up = job.payload.get("mrkdwn") is True
        return json.dumps({"text": text if marked_up else escape_slack(text)}).encode()
