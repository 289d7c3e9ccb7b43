"""Consent and gateway as in production, or the gateway in front of a simpler upstream."""

import asyncio
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.lab import Lab
from bench.system import System, fresh_values
from deploy.up import environment
from deploy.up.process import HOST, Process
from libs.common.messaging.broker import Broker
from services.followups import topology as followups
from tests.support.brokers import Vhost


class Consent(System):
    @property
    def settings(self) -> dict[str, str]:
        """The environment of the consent service."""
        settings = environment.for_process(self.values, "consent")
        return settings | {
            "DOUBLE_OPT_IN": "off",
            "DATABASE_URL": str(self.database),
            "AMQP_URL": self.vhost.url("consent"),
        }

    @property
    def records(self) -> Path:
        """Consent's records, which outlive the database."""
        return Path(self.values["CONSENT_RECORDS_DIR"])

    @contextmanager
    def running(self) -> Iterator[Process]:
        """Run the consent service."""
        with self.lab.process([sys.executable, "-m", "services.consent"], self.settings) as process:
            self.lab.answering(f"http://{HOST}:{self.values['CONSENT_PORT']}/health", process)
            yield process

    @contextmanager
    def plain(self) -> Iterator[Process]:
        """Run the simplest stand-in on the same port and database."""
        settings = {
            "DSN": self.database.superuser_url,
            "HTTP_PORT": self.values["CONSENT_PORT"],
        }
        argv = [sys.executable, "-m", "bench.peers.plain_consent"]
        with self.lab.process(argv, settings) as process:
            self.lab.answering(f"http://{HOST}:{self.values['CONSENT_PORT']}/health", process)
            yield process


@contextmanager
def consent(lab: Lab) -> Iterator[Consent]:
    """Create a database, and a vhost with a queue for its events."""
    database, vhost = lab.databases.create("consent"), Vhost(lab.rabbitmq)
    folder = lab.folder / f"consent-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    values = fresh_values(lab, "consent")
    values |= {
        "API_RATE_LIMIT_MINUTE": "100000000 per minute",
        "API_RATE_LIMIT_HOUR": "100000000 per hour",
        "PUBLIC_WRITE_BUDGET": "100000000 per hour",
        "PUBLIC_WITHDRAWAL_BUDGET": "100000000 per hour",
        "CONSENT_RECORDS_DIR": str(folder / "records"),
        "RATE_LIMIT_STATE_FILE": str(folder / "ratelimits.json"),
        "KEYS_STATE_FILE": str(folder / "keys.json"),
    }
    asyncio.run(_declare(vhost))
    try:
        yield Consent(lab, database, vhost, values)
    finally:
        vhost.delete()
        lab.databases.drop(database.name)


async def _declare(vhost: Vhost) -> None:
    async with Broker.connect(vhost.url("followups"), "bench") as broker:
        await broker.declare(*followups.EXCHANGES, *followups.QUEUES)
        await broker.session()
