"""The environment of the console."""

from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo

from libs.common.process.settings import StoringSettings, readable_by
from libs.domain.company import CompanySettings
from libs.domain.signed_links import parse_keys
from services.console.rules import Ways

T = TypeVar("T", str, SecretStr, bool)
EXAMPLE = "1234563218"
"""The NIP of config.example/company.toml."""
LOOPBACK = r"http://(localhost|127\.0\.0\.1)"


def _with_issuer(value: T, others: ValidationInfo) -> T:
    """Refuse a setting of the identity provider that does not go with OIDC_ISSUER."""
    given = value.get_secret_value() if isinstance(value, SecretStr) else value
    issuer = others.data.get("oidc_issuer")
    if given and not issuer:
        raise ValueError("needs OIDC_ISSUER")
    if issuer and given == "":
        raise ValueError("OIDC_ISSUER needs it")
    return value


class ConsoleSettings(StoringSettings, CompanySettings):
    gateway_url: str = Field(pattern=r"^https?://[^\s/]+$")
    operator_keys: Annotated[SecretStr, readable_by(parse_keys)]
    """Keys to sign who calls the gateway, which has the same ones."""
    rabbitmq_ui_url: str = Field("", pattern=r"^(https?://[^\s]+)?$")
    """Before a queue's name, as people's browsers reach RabbitMQ's UI; empty: pages link none."""
    public_base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    session_idle_seconds: int = Field(1800, ge=60)
    session_seconds: int = Field(43200, ge=300)
    oidc_issuer: str = Field("", pattern=rf"^((https://[^\s/?#]+|{LOOPBACK}(:\d+)?)(/[^\s?#]*)?)?$")
    """The company's identity provider, as its tokens name it; empty: people have passwords."""
    oidc_client_id: Annotated[str, AfterValidator(_with_issuer)] = Field("", validate_default=True)
    oidc_client_secret: Annotated[SecretStr, AfterValidator(_with_issuer)] = Field(
        SecretStr(""), validate_default=True
    )
    oidc_only: Annotated[bool, AfterValidator(_with_issuer)] = False
    """Refuse passwords."""
    action_retention_days: int = Field(5 * 365, ge=366)
    """Retention of the record of acts; the table enforces at least a year."""
    backup_dir: str = ""
    escalation_email: str = "ops@example.com"
    """The person whom the first invitation makes an admin."""

    @property
    def set_up(self) -> dict[str, bool]:
        """Return which answers of `ostoja setup` this process sees, and whether they are given."""
        host = urlsplit(self.company.privacy_url).hostname or ""
        return {
            "company": self.company.nip != EXAMPLE,
            "domain": self.public_base_url.startswith("https://"),
            "wordings": not host.endswith(".example"),
            "backup": bool(self.backup_dir),
        }

    @property
    def ways(self) -> Ways:
        host = (urlsplit(self.public_base_url).hostname or "").split(".")
        return Ways(not self.oidc_only, self.oidc_issuer, ("ostoja", *host))

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
