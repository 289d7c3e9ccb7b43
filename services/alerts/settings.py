from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from libs.common.process.settings import StoringSettings, readable_by
from libs.domain.signed_links import parse_keys


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_listed)]


Keys = Annotated[SecretStr, readable_by(parse_keys)]


def _http(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an http(s) URL")


class AlertsSettings(StoringSettings):
    alerts_config: Path = Path("config/alerts.toml")
    company_config: Path = Path("config/company.toml")
    """For the accent of its pages."""
    alerts_subject_keys: Keys = Field(min_length=1)
    """With these an export or an erasure finds the rows that name a data subject."""
    ping_keys: Keys = SecretStr("")
    """Signs the ping URLs of heartbeats; the gateway has the same."""
    alerts_delivered_kept_hours: int = Field(24, ge=1)
    alerts_payload_kept_days: int = Field(30, ge=1)
    alerts_reconcile_seconds: float = Field(30, gt=0)
    alerts_overdue_seconds: float = Field(60, gt=0)
    alerts_escalation_seconds: float = Field(300, gt=0)
    alerts_fallback_seconds: float = Field(600, gt=0)
    alerts_incident_seconds: float = Field(1800, gt=0)
    alerts_incident_pending: int = Field(100, ge=0)
    alerts_incident_repeat_seconds: float = Field(24 * 3600, gt=0)
    heartbeat_url: Annotated[SecretStr, readable_by(_http)] = SecretStr("")
    """Requested each minute while the ledger check is ok; whoever knows it can do so for us."""
    escalation_email: str = Field("ops@example.com", min_length=3)
    escalate_by: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        (), validate_default=False
    )
    """Targets for what on-call is told, in this order; none: mail, then others that people read."""
    public_base_url: str = "http://127.0.0.1:8080"
    alerts_backlog_per_second: int = Field(100, ge=1)
    alerts_private_networks: Networks = Field((), validate_default=False)
    subscriptions_private_networks: Networks = Field((), validate_default=False)
    """Not those of targets: whoever may make a subscription must not reach into them."""
