"""Where the parts of a deployment are: the private servers of `make up`, or containers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from deploy.local.environment import (
    AMQP_PASSWORDS,
    DATABASE,
    DATABASE_PASSWORDS,
    VHOST,
    WITH_TABLES,
    port,
)
from deploy.local.servers import HOST

PATIENCE = 5.0
"""Seconds for each thing that is asked."""

RESTART = "make up, or docker compose up -d"


@dataclass(frozen=True)
class Deployment:
    values: Mapping[str, str]
    """As .env names them; in a container, the environment."""
    gateway: str
    """URL."""
    env_file: Path

    def service_url(self, name: str) -> str:
        own = f"http://{HOST}:{port(self.values, f'{name.upper()}_PORT')}"
        return self.values[f"{name.upper()}_URL"] or own

    @property
    def service_urls(self) -> dict[str, str]:
        return {name: self.service_url(name) for name in WITH_TABLES}

    def database_url(self, role: str) -> str:
        password = quote(self.values[DATABASE_PASSWORDS[role]], safe="")
        where = f"{_host('POSTGRES_HOST')}:{port(self.values, 'POSTGRES_PORT')}"
        return f"postgresql://{role}:{password}@{where}/{DATABASE}"

    def amqp_url(self, service: str) -> str:
        password = quote(self.values[AMQP_PASSWORDS[service]], safe="")
        where = f"{_host('RABBITMQ_HOST')}:{port(self.values, 'RABBITMQ_PORT')}"
        return f"amqp://{service}:{password}@{where}/{VHOST}"

    @property
    def management_url(self) -> str:
        url = os.environ.get("RABBITMQ_MANAGEMENT_URL")
        return url or f"http://{_host('RABBITMQ_HOST')}:{port(self.values, 'RABBITMQ_UI_PORT')}"

    @property
    def redis_address(self) -> tuple[str, int]:
        return _host("REDIS_HOST"), port(self.values, "REDIS_PORT")

    @property
    def alerts_config(self) -> Path:
        return self.env_file.parent / self.values["ALERTS_CONFIG"]


def _host(variable: str) -> str:
    return os.environ.get(variable) or HOST
