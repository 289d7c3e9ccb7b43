"""Environment → frozen typed settings; every fault is reported at once, secrets never."""

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

S = TypeVar("S", bound="Settings")


class _SecretFiles(PydanticBaseSettingsSource):
    """`NAME_FILE=/run/secrets/name` stands for `NAME`, as in the official images."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{field_name.upper()}_FILE")
        if not path or "SecretStr" not in str(field.annotation):
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except OSError as error:
            raise SystemExit(f"{field_name.upper()}_FILE: {error}") from None

    def __call__(self) -> dict[str, Any]:
        values = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # a malformed DSN would print its password
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - make and compose read .env
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by ours
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _SecretFiles(settings_cls)


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
    database_url: SecretStr
    owner_database_url: SecretStr | None = None


class BrokerSettings(Settings):
    amqp_url: SecretStr


class RedisSettings(Settings):
    redis_url: SecretStr


def load(cls: type[S]) -> S:
    """Read the environment.

    :raises SystemExit: names every missing or malformed setting at once, never a value
    """
    try:
        return cls()
    except ValidationError as error:
        faults = (
            f"{'_'.join(map(str, fault['loc'])).upper()}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise SystemExit("\n".join(faults)) from None
