"""SMSAPI's sms.do or a compatible API. Its errors have numbers, inside a 200."""

import json
from dataclasses import replace
from typing import Literal
from urllib.parse import urlencode

from services.alerts.channels.channel import Secret, Url
from services.alerts.channels.post import HttpChannel, HttpTarget, Response
from services.alerts.channels.responses import refused, text_of
from services.alerts.messages import CASE_EVENTS
from services.alerts.rules.delivery import Claimed, Kind, Outcome, Reason

SMS_LETTERS = 1_500
"""Ten parts; providers refuse more."""
_UNAUTHORIZED = frozenset({101, 102, 103, 105, 110})  # 103: the account has no credits left
_BAD = frozenset({8, 11, 12, 13, 14, 17, 18, 104})


class SmsTarget(HttpTarget):
    needs = "phone"

    channel: Literal["sms"]
    url: Url
    token: Secret
    to: str


class Sms(HttpChannel[SmsTarget], section=SmsTarget):
    async def send(self, job: Claimed) -> Outcome:
        text = self._templates.render(self._name, job) or text_of(job.event_type, job.payload)
        # A case takes its recipient from the configuration; any other `to` is a caller's.
        own = job.payload.get("to") if job.event_type in CASE_EVENTS else None
        form = {
            "to": own or self._target.to,
            "message": text[:SMS_LETTERS],
            "format": "json",
            "encoding": "utf-8",
        }
        headers = {
            "Authorization": f"Bearer {self._target.token.get_secret_value()}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return read(await self._poster.post(urlencode(form).encode(), headers))


def read(answer: Response) -> Outcome:
    """Classify a response: only a list of queued messages is success."""
    outcome = answer.outcome
    if outcome.kind is not Kind.DELIVERED:
        return outcome
    try:
        data = json.loads(answer.body)
        if data.get("count") and not data.get("error"):
            return outcome
        code = int(data.get("error") or 0)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        code = 0
    if code in _UNAUTHORIZED:
        return refused(outcome, Reason.UNAUTHORIZED)
    if code in _BAD:
        return replace(outcome, kind=Kind.NEVER, reason=Reason.BAD_PAYLOAD)
    return replace(outcome, kind=Kind.FAILED, reason=Reason.BAD_ANSWER)
