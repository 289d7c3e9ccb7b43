"""A service with its own database and vhost, and the gateway in front of it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2

from bench.lab import Lab
from deploy.up import environment
from deploy.up.process import HOST, Process
from tests.support.brokers import Vhost
from tests.support.databases import DatabaseUrl


@dataclass(frozen=True)
class System:
    lab: Lab
    database: DatabaseUrl
    vhost: Vhost
    values: Mapping[str, str]
    """Settings, as in .env."""

    @contextmanager
    def gateway(self) -> Iterator[Process]:
        """Run the gateway with limits that are never reached."""
        settings = environment.for_process(self.values, "gateway")
        settings |= {"AMQP_URL": self.vhost.url("gateway"), "REDIS_URL": self.lab.redis.url}
        with self.lab.process([sys.executable, "-m", "services.gateway"], settings) as process:
            self.lab.answering(f"{self.gateway_url}/api/health", process)
            yield process

    @property
    def gateway_url(self) -> str:
        return f"http://{HOST}:{self.values['GATEWAY_PORT']}"

    def query(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Any]:
        """Run SQL as the superuser; each call commits."""
        with closing(psycopg2.connect(self.database.superuser_url)) as connection, connection:
            cursor = connection.cursor()
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


def fresh_values(lab: Lab, service: str) -> dict[str, str]:
    """Return the settings of a new .env, with free ports for this service and the gateway.

    They use the shipped configuration, even if this checkout has its own.
    """
    values = environment.defaults()
    values |= {name: make() for name, make in environment.GENERATED.items()}
    values |= {
        f"{name.upper()}_CONFIG": f"config.example/{name}.toml"
        for name in ("alerts", "company", "followups", "forms")
    }
    return values | {
        f"{name.upper()}{kind}_PORT": str(lab.ports.take())
        for name in (service, "gateway")
        for kind in ("", "_METRICS")
    }
