"""The environment of the console."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from libs.common.process.settings import DatabaseSettings, ServiceSettings
from libs.common.signed_links import Tokens


def _token_keys(keys: SecretStr) -> SecretStr:
    Tokens(keys.get_secret_value())
    return keys


class ConsoleSettings(ServiceSettings, DatabaseSettings):
    gateway_url: str = Field(pattern=r"^https?://[^\s/]+$")
    operator_keys: Annotated[SecretStr, AfterValidator(_token_keys)]
    """With which it signs who calls the gateway; the gateway has the same."""
    rabbitmq_ui_url: str = Field("", pattern=r"^(https?://[^\s]+)?$")
    """Before a queue's name, as people's browsers reach RabbitMQ's UI; empty: pages link none."""
    public_base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    session_idle_seconds: int = Field(1800, ge=60)
    session_seconds: int = Field(43200, ge=300)
    action_retention_days: int = Field(5 * 365, ge=366)
    """Retention of the record of acts; the table enforces at least a year."""
    escalation_email: str = "ops@example.com"
    """Whom the first invitation makes an admin."""

    @property
    def origin(self) -> str:
        parts = urlsplit(self.public_base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def keeps_secrets(self) -> bool:
        """Return whether browsers keep a `Secure` cookie there: with https, or on this machine."""
        parts = urlsplit(self.public_base_url)
        here = {"localhost", "127.0.0.1", "::1"}
        return parts.scheme == "https" or (parts.hostname or "") in here
