"""Checks what a process connects to, with the process's own accounts and certificates."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import aio_pika
from aio_pika.exceptions import AMQPError
from pydantic import SecretStr

from libs.common.messaging.broker import Broker
from libs.common.process import certificate_ends, sockets
from libs.common.process.finding import Finding, say
from libs.common.process.settings import Settings

Check = Callable[[], Awaitable[Iterable[Finding]]]

LOGIN_SECONDS = 5.0


async def findings(
    name: str, settings: Settings, broker: Broker, links: Mapping[str, SecretStr], *checks: Check
) -> list[Finding]:
    """:param links: links beyond the servers in the settings
    :param checks: checks that only this process has
    """
    urls = {link: url.get_secret_value() for link, url in {**settings.servers, **links}.items()}
    every = await asyncio.gather(
        _rabbitmq(name, urls["rabbitmq"], broker),
        in_thread(certificate_ends.findings, settings.tls_dir, urls),
        *(check() for check in checks),
    )
    return [finding for found in every for finding in found]


async def in_thread(check: Callable[..., Iterable[Finding]], *given: Any) -> list[Finding]:
    return await asyncio.to_thread(lambda: list(check(*given)))


async def _rabbitmq(service: str, url: str, broker: Broker) -> list[Finding]:
    found = [
        say("rabbitmq-fault", service=service, fault=fault)
        for host in sockets.each_host(url)
        if (fault := await _login(host))
    ]
    found += [
        say("queue-refused", service=service, item=item, reason=reason)
        for item, reason in broker.refused.items()
    ]
    return found or [say("rabbitmq", service=service)]


async def _login(url: str) -> str:
    """Return the error, or nothing."""
    try:
        async with asyncio.timeout(LOGIN_SECONDS):
            await (await aio_pika.connect(url)).close()
    except (AMQPError, OSError, TimeoutError) as error:
        return str(error) or type(error).__name__
    return ""
