from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from libs.common.settings import BrokerSettings, DatabaseSettings, ServiceSettings
from libs.common.tokens import Tokens
from services.consent.checkpoints import Signer
from services.consent.vault import decode_hash_key, parse_master_keys


def _token_keys(keys: SecretStr) -> SecretStr:
    Tokens(keys.get_secret_value())
    return keys


def _master_keys(keys: SecretStr) -> SecretStr:
    parse_master_keys(keys.get_secret_value())
    return keys


def _hash_key(key: SecretStr) -> SecretStr:
    decode_hash_key(key.get_secret_value())
    return key


def _checkpoint_keys(keys: SecretStr) -> SecretStr:
    Signer(keys.get_secret_value())
    return keys


class ConsentSettings(ServiceSettings, DatabaseSettings, BrokerSettings):
    token_keys: Annotated[SecretStr, AfterValidator(_token_keys)]
    consent_master_keys: Annotated[SecretStr, AfterValidator(_master_keys)]
    consent_hash_key: Annotated[SecretStr, AfterValidator(_hash_key)]
    consent_checkpoint_keys: Annotated[SecretStr, AfterValidator(_checkpoint_keys)]
    consent_records_dir: Path
    """What must outlive the database: the trail's checkpoints, and who was erased."""
    public_base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    permit_seconds: int = Field(20, ge=15)
    """The sender puts its final dot within 10 s of asking; the rest is margin."""
    withdrawal_wait_seconds: float = Field(25, ge=0, le=60)
    permit_quarantine_seconds: float = Field(600, ge=60)
    suppression_retention_days: int = Field(5 * 365, ge=1)
    erasure_link_hours: int = Field(24, ge=1, le=24 * 7)
    double_opt_in: bool = False
    """Every agreement waits for the mailed confirmation, not only one of a suppressed address."""
    opt_in_link_days: int = Field(7, ge=1, le=30)
    erasure_resend_seconds: float = Field(3600, ge=1)
    """How long the other services have to report an erasure back before it is ordered again."""
    export_seconds: float = Field(10, gt=0, le=30)
    """How long an export waits for each of the other services."""

    @property
    def site(self) -> str:
        """The name under which people know whom they deal with."""
        return urlsplit(self.public_base_url).netloc
