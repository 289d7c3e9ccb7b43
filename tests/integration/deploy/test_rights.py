"""What each service's account may do in RabbitMQ, tried on every exchange and queue there is."""

from collections.abc import Awaitable, Callable

import aio_pika
import aiormq
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection

from deploy.provision import RIGHTS, exchanges
from tests.support.brokers import Vhost
from tests.support.promql import queues

EXCHANGES = [name for name, _ in exchanges()]
# As the picture in docs/architecture.md has it: exchanges of its own, and those of others to which
# it sends, or to which it binds its queues.
OWN = {
    "gateway": "",
    "alerts": "alerts alerts.dlx alerts.events",
    "consent": "consent.commands consent.dlx consent.events",
    "followups": "followups.commands followups.dlx followups.events",
    "console": "console.commands console.dlx",
}
SENDS = {
    "gateway": "alerts console.commands followups.commands",
    "alerts": "consent.commands console.commands replies",
    "consent": "alerts console.commands followups.commands replies",
    "followups": "alerts consent.commands console.commands replies",
    "console": "alerts",
}
HEARS = {
    "gateway": "",
    "alerts": "consent.events followups.events replies",
    "consent": "replies",
    "followups": "alerts.events consent.events replies",
    "console": "",
}


async def send(channel: AbstractChannel, exchange: str) -> None:
    found = await channel.get_exchange(exchange, ensure=False)
    await found.publish(aio_pika.Message(b""), "nowhere", mandatory=False)


async def take(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).get(fail=False)


async def purge(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).purge()


async def define(channel: AbstractChannel, queue: str) -> None:
    await channel.declare_queue(queue, exclusive=True)


Act = Callable[[AbstractChannel, str], Awaitable[object]]


async def may(connection: AbstractConnection, act: Act, name: str) -> bool:
    channel = await connection.channel()  # a refusal closes it
    try:
        await act(channel, name)
    except aiormq.exceptions.ChannelAccessRefused:
        return False
    except aiormq.exceptions.ChannelNotFoundEntity:
        return True  # it was looked for
    await channel.close()
    return True


@pytest.mark.parametrize("service", RIGHTS)
async def test_a_service_has_exactly_the_permissions_of_its_topology(
    vhost: Vhost, service: str
) -> None:
    own = f"{service}.own"

    async def hear(channel: AbstractChannel, exchange: str) -> None:
        await (await channel.get_queue(own, ensure=False)).bind(exchange, "key")

    async with await aio_pika.connect(vhost.url(service)) as connection:
        assert await may(connection, define, own) is bool(OWN[service])
        sends, hears = ({*f"{OWN[service]} {others[service]}".split()} for others in (SENDS, HEARS))
        assert {name for name in EXCHANGES if await may(connection, send, name)} == sends
        assert {name for name in EXCHANGES if await may(connection, hear, name)} == hears
        for name in queues():
            mine = name.startswith(f"{service}.")
            assert await may(connection, take, name) is mine, name
            assert await may(connection, purge, name) is mine, name
        for other in (*RIGHTS.keys() - {service}, f"{service}s"):
            assert not await may(connection, define, f"{other}.own")
        assert not await may(connection, send, "")  # it leads into everybody's queues
