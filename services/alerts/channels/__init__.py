"""One file per provider: it says what to send, and what the provider's answer means."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from services.alerts.alert import Claimed, Outcome
from services.alerts.channels.apprise import Apprise
from services.alerts.channels.email import Email
from services.alerts.channels.monday import Monday
from services.alerts.channels.slack import Slack
from services.alerts.channels.sms import Sms
from services.alerts.channels.webhook import Webhook
from services.alerts.config import (
    AppriseTarget,
    EmailTarget,
    MondayTarget,
    SlackTarget,
    SmsTarget,
    Target,
    WebhookTarget,
)
from services.alerts.templates import Templates


class Channel(Protocol):
    async def send(self, job: Claimed) -> Outcome:
        """Try once, within the target's time-out.

        Whatever the target does is an outcome. What is raised is the payload's fault: a template
        or a channel could make nothing of it.
        """
        ...

    async def close(self) -> None: ...


@asynccontextmanager
async def opened(name: str, target: Target, templates: Templates) -> AsyncIterator[Channel]:
    channel = _create(name, target, templates)
    try:
        yield channel
    finally:
        await channel.close()


def _create(name: str, target: Target, templates: Templates) -> Channel:
    match target:
        case SlackTarget():
            return Slack(name, target, templates)
        case WebhookTarget():
            return Webhook(name, target, templates)
        case MondayTarget():
            return Monday(name, target, templates)
        case SmsTarget():
            return Sms(name, target, templates)
        case EmailTarget():
            return Email(name, target, templates)
        case AppriseTarget():
            return Apprise(name, target, templates)
    raise TypeError(type(target))
