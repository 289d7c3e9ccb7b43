"""Consent and gateway as they run in production, or the gateway before something plainer."""

import asyncio
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from bench.lab import Lab
from deploy.local import environment
from deploy.local.servers import HOST, Process
from libs.common.broker import Broker
from services.followups import topology as followups
from tests.support.brokers import Vhost
from tests.support.databases import DatabaseUrl


@dataclass(frozen=True)
class Consent:
    lab: Lab
    database: DatabaseUrl
    vhost: Vhost
    values: Mapping[str, str]
    """As .env has them."""

    @property
    def settings(self) -> dict[str, str]:
        """The environment of the consent service."""
        settings = environment.for_process(self.values, "consent")
        return settings | {
            "DATABASE_URL": str(self.database),
            "AMQP_URL": self.vhost.url("consent"),
        }

    @property
    def records(self) -> Path:
        """Where consent keeps what outlives the database."""
        return Path(self.values["CONSENT_RECORDS_DIR"])

    @contextmanager
    def running(self) -> Iterator[Process]:
        """Run the consent service."""
        with self.lab.process([sys.executable, "-m", "services.consent"], self.settings) as process:
            self.lab.answering(f"http://{HOST}:{self.values['CONSENT_PORT']}/health", process)
            yield process

    @contextmanager
    def plain(self) -> Iterator[Process]:
        """Run in its place, on the same port and database, what does the least of it."""
        settings = {
            "DSN": self.database.superuser_url,
            "HTTP_PORT": self.values["CONSENT_PORT"],
        }
        argv = [sys.executable, "-m", "bench.peers.plain_consent"]
        with self.lab.process(argv, settings) as process:
            self.lab.answering(f"http://{HOST}:{self.values['CONSENT_PORT']}/health", process)
            yield process

    @contextmanager
    def gateway(self) -> Iterator[Process]:
        """Run the gateway, its limits too high to be met."""
        settings = environment.for_process(self.values, "gateway")
        settings |= {"AMQP_URL": self.vhost.url("gateway"), "REDIS_URL": self.lab.redis.url}
        with self.lab.process([sys.executable, "-m", "services.gateway"], settings) as process:
            self.lab.answering(f"{self.gateway_url}/api/health", process)
            yield process

    @property
    def gateway_url(self) -> str:
        return f"http://{HOST}:{self.values['GATEWAY_PORT']}"

    def query(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Any]:
        """Ask as the superuser; each call commits."""
        with closing(psycopg2.connect(self.database.superuser_url)) as connection, connection:
            cursor = connection.cursor()
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def consent(lab: Lab) -> Iterator[Consent]:
    """Give it a database, and a vhost in which somebody's queue takes what it tells."""
    database, vhost = lab.databases.create("consent"), Vhost(lab.rabbitmq)
    folder = lab.folder / f"consent-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    values = environment.parse(environment.EXAMPLE.read_text(encoding="utf-8"))
    values |= {name: make() for name, make in environment.GENERATED.items()}
    values |= {
        f"{name.upper()}{kind}_PORT": str(lab.ports.take())
        for name in ("consent", "gateway")
        for kind in ("", "_METRICS")
    }
    values |= {
        "API_RATE_LIMIT_MINUTE": "100000000 per minute",
        "API_RATE_LIMIT_HOUR": "100000000 per hour",
        "CONSENT_RECORDS_DIR": str(folder / "records"),
        "RATE_LIMIT_STATE_FILE": str(folder / "ratelimits.json"),
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
