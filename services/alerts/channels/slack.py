"""Slack's incoming webhook: a POST that succeeded answers 200 with the two letters `ok`."""

import json
from dataclasses import replace

from services.alerts.alert import Claimed, Kind, Outcome, Reason
from services.alerts.channels.answers import text_of
from services.alerts.channels.network import Network
from services.alerts.channels.post import Poster
from services.alerts.config import SlackTarget
from services.alerts.templates import Templates


class Slack:
    def __init__(
        self, name: str, target: SlackTarget, templates: Templates, network: Network
    ) -> None:
        self._name = name
        self._templates = templates
        self._poster = Poster(target, target.url.get_secret_value(), network)

    async def send(self, job: Claimed) -> Outcome:
        answer = await self._poster.post(self._body(job), {})
        if answer.outcome.kind is Kind.DELIVERED and answer.body.strip() != b"ok":
            return replace(answer.outcome, kind=Kind.FAILED, reason=Reason.BAD_ANSWER)
        return answer.outcome

    def _body(self, job: Claimed) -> bytes:
        rendered = self._templates.render(self._name, job)
        if rendered is not None:
            return rendered.encode()
        return json.dumps({"text": text_of(job.event_type, job.payload)}).encode()

    async def close(self) -> None:
        await self._poster.close()
