"""Followups and gateway as in production, on their own database and vhost."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import aio_pika

from bench.lab import Lab
from bench.system import System, fresh_values
from deploy.up import environment
from deploy.up.process import HOST, Process
from libs.common.messaging.broker import Broker
from services.alerts import topology as alerts
from services.consent import topology as consent
from tests.support.brokers import Vhost


class Followups(System):
    @contextmanager
    def running(self) -> Iterator[Process]:
        settings = environment.for_process(self.values, "followups")
        settings |= {
            "DATABASE_URL": str(self.database),
            "AMQP_URL": self.vhost.url("followups"),
        }
        argv = [sys.executable, "-m", "services.followups"]
        with self.lab.process(argv, settings) as process:
            self.lab.answering(f"{self.own_url}/health", process)
            yield process

    @contextmanager
    def plain(self) -> Iterator[Process]:
        """Run the simplest stand-in on the same port and database."""
        settings = {
            "DSN": self.database.superuser_url,
            "HTTP_PORT": self.values["FOLLOWUPS_PORT"],
        }
        argv = [sys.executable, "-m", "bench.peers.plain_chat"]
        with self.lab.process(argv, settings) as process:
            self.lab.answering(f"{self.own_url}/health", process)
            yield process

    @property
    def own_url(self) -> str:
        return f"http://{HOST}:{self.values['FOLLOWUPS_PORT']}"

    def waiting(self, queue: str) -> int:
        """Count the ready messages of a queue without a consumer."""
        return asyncio.run(_waiting(self.vhost.admin_url(), queue))


@contextmanager
def followups(lab: Lab) -> Iterator[Followups]:
    """Create a database, and a vhost with the other services' queues for its messages."""
    database, vhost = lab.databases.create("followups"), Vhost(lab.rabbitmq)
    values = fresh_values(lab, "followups")
    values |= {
        "CHAT_RATE_LIMIT": "100000000 per minute",
        "CHAT_BUDGET": "100000000 per hour",
        "FOLLOWUP_QUIET_HOURS": "off",
        "RATE_LIMIT_STATE_FILE": str(lab.folder / "ratelimits.json"),
        "KEYS_STATE_FILE": str(lab.folder / "keys.json"),
    }
    asyncio.run(_declare(vhost))
    try:
        yield Followups(lab, database, vhost, values)
    finally:
        vhost.delete()
        lab.databases.drop(database.name)


async def _declare(vhost: Vhost) -> None:
    async with Broker.connect(vhost.url("followups"), "bench") as broker:
        await broker.declare(alerts.FOLLOWUP_EVENTS)
        await broker.session()
    for account, exchanges, queues in (
        ("alerts", (alerts.ALERTS, alerts.DLX), alerts.intake_queues()),
        ("consent", consent.EXCHANGES, consent.QUEUES),
    ):
        async with Broker.connect(vhost.url(account), "bench") as broker:
            await broker.declare(*exchanges, *queues)
            await broker.session()


async def _waiting(url: str, queue: str) -> int:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        found = await channel.declare_queue(queue, passive=True)
        return int(found.declaration_result.message_count or 0)
