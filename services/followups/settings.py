from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from libs.common.settings import BrokerSettings, DatabaseSettings, ServiceSettings
from libs.common.tokens import Tokens


def _token_keys(keys: SecretStr) -> SecretStr:
    Tokens(keys.get_secret_value())
    return keys


class FollowupsSettings(ServiceSettings, DatabaseSettings, BrokerSettings):
    token_keys: Annotated[SecretStr, AfterValidator(_token_keys)]
    public_base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    followups_config: Path = Path("config/followups.toml")
    followup_quiet_hours: bool = True
    followup_max_per_day: int = Field(1, ge=1)
    """Follow-ups to one address within 24 hours, over all its conversations."""
