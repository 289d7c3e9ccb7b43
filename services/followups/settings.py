from pathlib import Path
from re import fullmatch
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from libs.common.process.settings import BrokerSettings, DatabaseSettings, ServiceSettings
from libs.domain.company import CompanySettings
from libs.domain.signed_links import Tokens


def _token_keys(keys: SecretStr) -> SecretStr:
    Tokens(keys.get_secret_value())
    return keys


def _returns(address: str) -> str:
    # With `+` and a token the local part has 64 characters at most (RFC 5321).
    if address and not fullmatch(r"[a-z0-9._-]{1,20}@[a-z0-9.-]+", address):
        raise ValueError("needs local@domain in small letters, local of 20 at most")
    return address


class FollowupsSettings(ServiceSettings, DatabaseSettings, BrokerSettings, CompanySettings):
    token_keys: Annotated[SecretStr, AfterValidator(_token_keys)]
    public_base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    bounce_address: Annotated[str, AfterValidator(_returns)] = ""
    """Of the return path, if its mailbox also takes `local+anything@domain`."""
    inbox_url: SecretStr = SecretStr("")
    """`imaps://user:password@host/INBOX`: where mail comes back."""
    inbox_shared: bool = False
    """People read that mailbox: only mail that is about a follow-up is moved."""
    followups_config: Path = Path("config/followups.toml")
    lead_suspect_days: int = Field(14, ge=1)
    """How long a submission that looks like a robot's waits for a person."""
    followup_quiet_hours: bool = True
    followup_max_per_day: int = Field(1, ge=1)
    """Follow-ups to one address within 24 hours, across all its conversations."""
    chat_model_url: str = Field("", pattern=r"^(https?://[^\s/]+/\S*)?$")
    """`/v1/chat/completions` of a model that reads what no rule is sure of; empty: none."""
    chat_model: str = ""
    chat_model_key: SecretStr = SecretStr("")
    conversation_retention_days: int = Field(365, ge=1)
    """Counted from the last activity; a conversation with a pending step is kept."""
