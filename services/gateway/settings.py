"""The gateway's environment."""

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo

from libs.common.http.server import MAX_CONNECTIONS
from libs.common.process import certificates
from libs.common.process.settings import BrokerSettings, ProcessSettings, RedisSettings, readable_by
from libs.domain.signed_links import parse_keys
from services.gateway.door.clients import parse_networks
from services.gateway.door.keys import parse_ids
from services.gateway.door.limits import Limit, Schedule
from services.gateway.door.overrides import Rules


def _origins(text: str) -> str:
    for origin in text.split(","):
        if origin.strip() not in {"", "*"} and not origin.strip().startswith(
            ("http://", "https://")
        ):
            raise ValueError(f"{origin.strip()!r} is not an origin like https://www.example.com")
    return text


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("not an http URL")
    return text.rstrip("/")


def _zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # a malformed key, a path, an unknown name
        raise ValueError(f"{name!r} is not a time zone like Europe/Warsaw") from None


KEY_LETTERS, KEY_DIFFERENT_LETTERS = 16, 8


def _strong(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if len(text) < KEY_LETTERS or len(set(text)) < KEY_DIFFERENT_LETTERS:
        raise ValueError(
            f"easily guessed: {KEY_LETTERS} letters or more, {KEY_DIFFERENT_LETTERS} different ones"
        )
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_strong)]
Url = Annotated[str, AfterValidator(_url)]
TokenKeys = Annotated[SecretStr, readable_by(parse_keys)]


def _with_certificate(port: int | None, others: ValidationInfo) -> int | None:
    if port is not None and not certificates.is_complete(others.data.get("tls_dir")):
        raise ValueError("needs TLS_DIR with tls.crt and tls.key")
    return port


class GatewaySettings(ProcessSettings, BrokerSettings, RedisSettings):
    https_port: Annotated[int | None, AfterValidator(_with_certificate)] = Field(
        None, ge=1, le=65535
    )
    """For the console, to clients with a certificate only; visitors' proxies have HTTP_PORT."""
    company_config: Path = Path("config/company.toml")
    """For the accent of its pages."""
    followups_url: Url
    consent_url: Url
    alerts_url: Url
    followups_internal_key: SecretStr = Field(min_length=16)
    consent_internal_key: SecretStr = Field(min_length=16)
    alerts_internal_key: SecretStr = Field(min_length=16)

    service_api_key: ApiKey | None = None
    admin_api_key: ApiKey | None = None
    service_api_key_previous: ApiKey | None = None
    admin_api_key_previous: ApiKey | None = None
    """The old key, valid until all clients have the new one."""
    env_keys: bool = True
    """Whether the four keys above open anything."""
    console_url: Url | None = None
    """Without it there are no API keys but those of the environment."""
    console_internal_key: SecretStr | None = Field(default=None, min_length=16)
    keys_state_file: Path = Path(".local/gateway/keys.json")
    """A file, or the word `redis` to keep them there."""
    keys_denied: Annotated[str, readable_by(parse_ids)] = ""
    """Ids of keys, separated by commas, that open nothing whatever the console says."""

    operator_keys: TokenKeys | None = None
    """The console signs with these which of its staff calls; without them no one is believed."""

    token_keys: TokenKeys | None = None
    """Only to recognise mailed links, which are exempt from limits by address."""

    ping_keys: TokenKeys | None = None
    """Those of alerts, which signs the ping URLs; without them each answers 404."""

    form_keys: TokenKeys | None = None
    """Signs the time at which a form is shown, and challenges; without it no form checks how fast
    it was sent, and none may ask for a proof of work."""
    forms_config: Path = Path("config/forms.toml")
    sandbox_port: int = Field(8090, ge=1, le=65535)
    """Of the web site that forms.toml calls `sandbox`."""
    wording_grace_days: int = Field(default=30, ge=0, le=365)
    """How long a wording counts after it ended: a page may have been open."""

    slack_signing_secret: SecretStr | None = None
    """The secret of the Slack app with buttons; without it their route answers 404."""

    chat_rate_limit: Limit = "30 per minute"
    api_rate_limit_hour: Limit = "200 per hour"
    api_rate_limit_minute: Limit = "50 per minute"
    service_rate_limit: Limit = "10000 per minute"
    slack_rate_limit: Limit = "600 per minute"
    health_rate_limit: Limit = "120 per minute"
    console_rate_limit: Limit = "1200 per minute"
    login_rate_limit: Limit = "300 per 15 minutes"
    """Against floods: the console counts tries of an account, and an office has one address."""
    chat_budget: Limit = "3000 per hour"
    public_write_budget: Limit = "1000 per hour"
    """Opt-ins."""
    public_withdrawal_budget: Limit = "1000 per hour"
    """Withdrawals without a mailed link; beyond it they succeed but mail no link."""
    rate_limit_timezone: Annotated[str, readable_by(_zone)] = "Europe/Warsaw"
    """Time zone of the hours in limits."""
    service_wait_seconds: float = Field(default=5, ge=0, le=20)
    """How long a request with a key waits for the next window when over the limit."""
    service_wait_most: int = Field(default=100, ge=0, le=1_000)
    """How many wait at a time; further ones are rejected."""
    rate_limit_mode: Literal["enforce", "shadow"] = "enforce"
    rate_limit_state_file: Path = Path(".local/gateway/ratelimits.json")

    max_connections: int = Field(default=MAX_CONNECTIONS, ge=1)
    connections_per_client: int = Field(default=1_000, ge=1)
    """Per address or /64; trusted proxies are exempt."""

    gateway_workers: int = Field(default=1, ge=1, le=64)

    trusted_proxies: Annotated[str, readable_by(parse_networks)] = ""
    cors_origins: Annotated[str, AfterValidator(_origins)] = ""
    public_base_url: str = ""
    alerts_config: Path = Path("config/alerts.toml")

    @property
    def sandbox_site(self) -> str:
        return f"http://127.0.0.1:{self.sandbox_port}"

    def rules(self) -> Rules:
        names = {
            "chat": "chat_rate_limit",
            "minute": "api_rate_limit_minute",
            "hour": "api_rate_limit_hour",
            "service": "service_rate_limit",
            "slack": "slack_rate_limit",
            "health": "health_rate_limit",
            "console": "console_rate_limit",
            "login": "login_rate_limit",
            "chat_budget": "chat_budget",
            "write_budget": "public_write_budget",
            "withdrawal_budget": "public_withdrawal_budget",
        }
        return Rules(
            {name: Schedule.parse(name, getattr(self, field)) for name, field in names.items()},
            {
                name: "env" if field in self.model_fields_set else "default"
                for name, field in names.items()
            },
            ZoneInfo(self.rate_limit_timezone),
        )
