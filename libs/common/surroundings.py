"""Checks what a process connects to, with the process's own accounts and certificates."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import aio_pika
from aio_pika.exceptions import AMQPError
from pydantic import SecretStr

from libs.common.messaging.broker import Broker
from libs.common.process import certificate_ends, sockets
from libs.common.process.finding import RESTART, Finding, ok, wrong
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
    found = []
    for host in sockets.each_host(url):
        if fault := await _login(host):
            do = f"{RESTART} starts it, and sets the accounts' passwords as .env has them"
            found.append(wrong("RabbitMQ", f"as {service}: {fault}", do))
    found += [
        wrong(
            "queues", f"{service} cannot declare {item}: {reason}", "docs/runbooks/service-down.md"
        )
        for item, reason in broker.refused.items()
    ]
    return found or [ok("RabbitMQ", f"reached as {service}, which has declared what it uses")]


async def _login(url: str) -> str:
    """Return the error, or nothing."""
    try:
        async with asyncio.timeout(LOGIN_SECONDS):
            await (await aio_pika.connect(url)).close()
    except (AMQPError, OSError, TimeoutError) as error:
        return str(error) or type(error).__name__
    return ""
