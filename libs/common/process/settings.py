"""Environment → frozen typed settings; every fault is reported at once, secrets never."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.common.process import certificates

S = TypeVar("S", bound="Settings")
Text = TypeVar("Text", str, SecretStr)


def readable_by(parse: Callable[[str], object]) -> AfterValidator:
    """Refuse a text that this function cannot read; an empty one is not given."""

    def check(text: Text) -> Text:
        if given := text.get_secret_value() if isinstance(text, SecretStr) else text:
            parse(given)
        return text

    return AfterValidator(check)


def _with_files(url: SecretStr, others: ValidationInfo) -> SecretStr:
    return SecretStr(certificates.in_url(url.get_secret_value(), others.data.get("tls_dir")))


Url = Annotated[SecretStr, AfterValidator(_with_files)]
"""The address of a server; with TLS it names the files of TLS_DIR."""


class Settings(BaseSettings):
    tls_dir: Annotated[Path, AfterValidator(certificates.check)] | None = None
    """Declared first, because the URLs name its files."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # a malformed DSN would print its password
    )

    @property
    def servers(self) -> dict[str, SecretStr]:
        """Return the URLs of PostgreSQL, RabbitMQ and Redis, as far as this process uses them."""
        fields = {"postgres": "database_url", "rabbitmq": "amqp_url", "redis": "redis_url"}
        return {
            name: getattr(self, field) for name, field in fields.items() if hasattr(self, field)
        }


class ProcessSettings(Settings):
    http_host: str = "127.0.0.1"
    http_port: int = Field(ge=0, le=65535)
    metrics_port: int = Field(ge=0, le=65535)
    log_level: str = "INFO"
    drain_delay_seconds: float = Field(0, ge=0, le=8)


class ServiceSettings(ProcessSettings):
    internal_api_key: SecretStr = Field(min_length=16)
    """The key of this service only; the gateway is the only caller that has it."""


class DatabaseSettings(Settings):
    database_url: Url
    owner_database_url: Url | None = None

    @property
    def owner_url(self) -> str | None:
        return self.owner_database_url.get_secret_value() if self.owner_database_url else None


class BrokerSettings(Settings):
    amqp_url: Url


class StoringSettings(ServiceSettings, DatabaseSettings, BrokerSettings):
    """Of a service with tables."""


class RedisSettings(Settings):
    redis_url: Url


def _secret_files(cls: type[Settings]) -> Iterator[tuple[str, Any]]:
    """`NAME_FILE=/run/secrets/name` stands for `NAME`, as in the official images."""
    for name, field in cls.model_fields.items():
        path = os.environ.get(f"{name.upper()}_FILE")
        if path and "SecretStr" in str(field.annotation) and not os.environ.get(name.upper()):
            try:
                yield name, Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise SystemExit(f"{name.upper()}_FILE: {error}") from None


def load(cls: type[S]) -> S:
    """Read the environment.

    :raises SystemExit: names every missing or malformed setting at once, never a value
    """
    try:
        return cls(**dict(_secret_files(cls)))
    except ValidationError as error:
        faults = (
            f"{'_'.join(map(str, fault['loc'])).upper()}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise SystemExit("\n".join(faults)) from None
