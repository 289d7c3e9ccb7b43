"""Addresses of a deployment's parts: the private servers of `make up`, or containers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from deploy.up.environment import (
    AMQP_PASSWORDS,
    DATABASE,
    DATABASE_PASSWORDS,
    VHOST,
    WITH_TABLES,
    port,
    service_url,
    tls_dir,
)
from deploy.up.process import HOST
from libs.common.process import certificates

PATIENCE = 5.0
"""Seconds for each request."""

RESTART = "make up, or docker compose up -d"


@dataclass(frozen=True)
class Deployment:
    values: Mapping[str, str]
    """Settings from .env; in a container, from the environment."""
    gateway: str
    """URL."""
    env_file: Path

    def service_url(self, name: str) -> str:
        return self.values[f"{name.upper()}_URL"] or service_url(self.values, name)

    @property
    def tls_dir(self) -> Path | None:
        """Of this tool."""
        own = tls_dir(self.values, "ostoja")
        return self.env_file.parent / own if own else None

    @property
    def service_urls(self) -> dict[str, str]:
        return {name: self.service_url(name) for name in WITH_TABLES}

    def database_url(self, role: str) -> str:
        password = quote(self.values[DATABASE_PASSWORDS[role]], safe="")
        where = self._address("POSTGRES") + f"/{DATABASE}{self.values['POSTGRES_OPTIONS']}"
        return self._with_files(f"postgresql://{role}:{password}@{where}")

    def amqp_url(self, service: str) -> str:
        password = quote(self.values[AMQP_PASSWORDS[service]], safe="")
        where = self._address("RABBITMQ") + f"/{VHOST}{self.values['RABBITMQ_OPTIONS']}"
        scheme = self.values["RABBITMQ_SCHEME"] or "amqp"
        return self._with_files(f"{scheme}://{service}:{password}@{where}")

    @property
    def management_url(self) -> str:
        own = f"http://{HOST}:{port(self.values, 'RABBITMQ_UI_PORT')}"
        return self.values["RABBITMQ_MANAGEMENT_URL"] or own

    @property
    def redis_url(self) -> str:
        password = quote(self.values["REDIS_PASSWORD"], safe="")
        where = self._address("REDIS") + f"/0{self.values['REDIS_OPTIONS']}"
        scheme = self.values["REDIS_SCHEME"] or "redis"
        return self._with_files(f"{scheme}://:{password}@{where}")

    def _with_files(self, url: str) -> str:
        return certificates.in_url(url, self.tls_dir)

    def _address(self, server: str) -> str:
        return self.values[f"{server}_ADDRESS"] or f"{HOST}:{port(self.values, f'{server}_PORT')}"

    @property
    def alerts_config(self) -> Path:
        return self.env_file.parent / self.values["ALERTS_CONFIG"]
