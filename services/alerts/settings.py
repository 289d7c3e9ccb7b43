from pathlib import Path

from pydantic import Field

from libs.common.settings import BrokerSettings, DatabaseSettings, ServiceSettings


class AlertsSettings(ServiceSettings, DatabaseSettings, BrokerSettings):
    alerts_config: Path = Path("config/alerts.toml")
    alerts_delivered_kept_hours: int = Field(24, ge=1)
    alerts_sweep_seconds: float = Field(30, gt=0)
    alerts_overdue_seconds: float = Field(60, gt=0)
    alerts_drain_per_second: int = Field(100, ge=1)
