"""The gateway's environment."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from libs.common.settings import BrokerSettings, RedisSettings, ServiceSettings
from libs.common.tokens import parse_keys
from services.gateway.clients import parse_networks
from services.gateway.limits import Limit, Window
from services.gateway.overrides import Rules


def _networks(text: str) -> str:
    parse_networks(text)
    return text


def _token_keys(keys: SecretStr) -> SecretStr:
    parse_keys(keys.get_secret_value())
    return keys


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


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


METRICS = "/metrics"
Url = Annotated[str, AfterValidator(_url)]


class GatewaySettings(ServiceSettings, BrokerSettings, RedisSettings):
    followups_url: Url
    consent_url: Url
    alerts_url: Url

    # Where each answers a scrape, at the host of its URL; RabbitMQ by its plugin for Prometheus.
    followups_metrics_port: int = Field(default=9081, ge=1, le=65535)
    consent_metrics_port: int = Field(default=9082, ge=1, le=65535)
    alerts_metrics_port: int = Field(default=9083, ge=1, le=65535)
    rabbitmq_metrics_port: int = Field(default=15692, ge=1, le=65535)

    service_api_key: SecretStr | None = None
    admin_api_key: SecretStr | None = None
    token_keys: Annotated[SecretStr, AfterValidator(_token_keys)] | None = None
    """Only to know a mailed link when it comes back: such calls are exempt from address limits."""

    chat_rate_limit: Limit = "30 per minute"
    api_rate_limit_hour: Limit = "200 per hour"
    api_rate_limit_minute: Limit = "50 per minute"
    service_rate_limit: Limit = "10000 per minute"
    rate_limit_mode: Literal["enforce", "shadow"] = "enforce"
    rate_limit_state_file: Path = Path(".local/gateway/ratelimits.json")

    gateway_workers: int = Field(default=1, ge=1, le=64)

    trusted_proxies: Annotated[str, AfterValidator(_networks)] = ""
    cors_origins: Annotated[str, AfterValidator(_origins)] = ""
    public_base_url: str = ""
    alerts_config: Path = Path("config/alerts.toml")

    def scraped(self) -> dict[str, tuple[str, int, str]]:
        """Host, port and path of whatever else is scraped, by the jobs of prometheus.yml."""
        amqp = urlsplit(self.amqp_url.get_secret_value())
        rabbitmq = (amqp.hostname or "", self.rabbitmq_metrics_port)
        vhost, families = amqp.path[1:], "family=queue_coarse_metrics&family=queue_consumer_count"
        return {
            "followups": (_host(self.followups_url), self.followups_metrics_port, METRICS),
            "consent": (_host(self.consent_url), self.consent_metrics_port, METRICS),
            "alerts": (_host(self.alerts_url), self.alerts_metrics_port, METRICS),
            "rabbitmq": (*rabbitmq, METRICS),
            "queues": (*rabbitmq, f"{METRICS}/detailed?vhost={vhost}&{families}"),
        }

    def rules(self) -> Rules:
        names = {
            "chat": "chat_rate_limit",
            "minute": "api_rate_limit_minute",
            "hour": "api_rate_limit_hour",
            "service": "service_rate_limit",
        }
        return Rules(
            {name: Window.parse(name, getattr(self, field)) for name, field in names.items()},
            {
                name: "env" if field in self.model_fields_set else "default"
                for name, field in names.items()
            },
        )
