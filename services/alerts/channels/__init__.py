"""One module per provider: its section of alerts.toml, the request to send, and the response."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules

from services.alerts.channels.channel import SECTIONS, Channel, Target
from services.alerts.channels.network import Network, Networks
from services.alerts.channels.subscription import Subscription, SubscriptionTarget
from services.alerts.channels.templates import Templates

__all__ = ["Channel", "opened"]

for _each in iter_modules(__path__, f"{__name__}."):
    import_module(_each.name)


@asynccontextmanager
async def opened(
    name: str, target: Target, templates: Templates, private: Networks
) -> AsyncIterator[Channel]:
    """:param private: networks, beside the public internet, in which a target may be"""
    async with AsyncExitStack() as closing:
        network = Network(name, private, target.concurrency)
        kind = SECTIONS.get(type(target), Subscription)
        if isinstance(target, SubscriptionTarget):
            network.setting, network.public = "SUBSCRIPTIONS_PRIVATE_NETWORKS", target.encrypted
        closing.push_async_callback(network.close)
        channel = kind(name, target, templates, network)
        closing.push_async_callback(channel.close)
        yield channel
