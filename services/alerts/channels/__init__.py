"""One module per provider: the request to send, and the meaning of the response."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from services.alerts.channels.apprise import Apprise
from services.alerts.channels.email import Email
from services.alerts.channels.monday import Monday
from services.alerts.channels.network import Network, Networks
from services.alerts.channels.slack import Slack
from services.alerts.channels.sms import Sms
from services.alerts.channels.webhook import Webhook
from services.alerts.config.targets import (
    AppriseTarget,
    EmailTarget,
    MondayTarget,
    SlackTarget,
    SmsTarget,
    Target,
    WebhookTarget,
)
from services.alerts.config.templates import Templates
from services.alerts.rules.delivery import Claimed, Outcome


class Channel(Protocol):
    async def send(self, job: Claimed) -> Outcome:
        """Make one attempt, within the target's time-out.

        :raises Exception: the template or the channel cannot send this payload; whatever the
            target does is an outcome instead
        """
        ...

    async def close(self) -> None: ...


@asynccontextmanager
async def opened(
    name: str, target: Target, templates: Templates, private: Networks
) -> AsyncIterator[Channel]:
    """:param private: networks, beside the public internet, in which a target may be"""
    async with AsyncExitStack() as closing:
        network = Network(name, private, target.concurrency)
        closing.push_async_callback(network.close)
        channel = _create(name, target, templates, network)
        closing.push_async_callback(channel.close)
        yield channel


def _create(name: str, target: Target, templates: Templates, network: Network) -> Channel:
    match target:
        case SlackTarget():
            return Slack(name, target, templates, network)
        case WebhookTarget():
            return Webhook(name, target, templates, network)
        case MondayTarget():
            return Monday(name, target, templates, network)
        case SmsTarget():
            return Sms(name, target, templates, network)
        case EmailTarget():
            return Email(name, target, templates, network)
        case AppriseTarget():
            return Apprise(name, target, templates, network)
    raise TypeError(type(target))
