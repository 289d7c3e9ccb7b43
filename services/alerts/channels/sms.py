"""SMSAPI's sms.do or a compatible API. Its errors have numbers, inside a 200."""

from typing import Literal
from urllib.parse import urlencode

from services.alerts.channels.channel import Secret, Url
from services.alerts.channels.post import HttpChannel, HttpTarget, Response
from services.alerts.channels.responses import said
from services.alerts.messages import CASE_EVENTS
from services.alerts.rules.delivery import Claimed, Kind, Outcome, Reason

SMS_LETTERS = 1_500
"""Ten parts; providers refuse more."""
_REASONS = {
    # 103: the account has no credits left
    **dict.fromkeys(("101", "102", "103", "105", "110"), Reason.UNAUTHORIZED),
    **dict.fromkeys(("8", "11", "12", "13", "14", "17", "18", "104"), Reason.BAD_PAYLOAD),
}


class SmsTarget(HttpTarget):
    needs = "phone"

    channel: Literal["sms"]
    url: Url
    token: Secret
    to: str


class Sms(HttpChannel[SmsTarget], section=SmsTarget):
    async def send(self, job: Claimed) -> Outcome:
        text = self._templates.text(self._name, job)
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
    outcome, data = answer.outcome, answer.data
    if outcome.kind is not Kind.DELIVERED or (data.get("count") and not data.get("error")):
        return outcome
    return said(outcome, _REASONS.get(str(data.get("error")), Reason.BAD_ANSWER))
