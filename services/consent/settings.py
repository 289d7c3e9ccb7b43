"""The environment of consent."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from libs.common.process.settings import StoringSettings, readable_by
from libs.domain.company import CompanySettings
from libs.domain.signed_links import Tokens
from services.consent.store.vault import Vault, decode_hash_keys, parse_keys
from services.consent.trail.append_only_file import AppendOnlyFile
from services.consent.trail.checkpoints import Signer


class ConsentSettings(StoringSettings, CompanySettings):
    token_keys: Annotated[SecretStr, readable_by(Tokens)]
    consent_master_keys: Annotated[SecretStr, readable_by(parse_keys)]
    consent_hash_key: Annotated[SecretStr, readable_by(decode_hash_keys)]
    consent_checkpoint_keys: Annotated[SecretStr, readable_by(Signer)]
    consent_records_dir: Path
    """Files that must outlive the database: checkpoints of the trail, withdrawals and erasures."""
    consent_records_copy: Path | None = None
    """A second folder for withdrawals and erasures, on a disk that survives if this one is lost."""
    public_base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    permit_seconds: int = Field(20, ge=15)
    """The sender sends its final dot within 10 s of the request; the rest is margin."""
    withdrawal_wait_seconds: float = Field(25, ge=0, le=60)
    permit_quarantine_seconds: float = Field(600, ge=60)
    suppression_retention_days: int = Field(5 * 365, ge=1)
    """Counted from the latest withdrawal; until then an import mails no one."""
    consent_proof_days: int = Field(6 * 365, ge=1)
    """Counted from the last entry of a subject without consents: claims in which the consent is
    evidence lapse after at most six years (Art. 118 of the Polish Civil Code)."""
    withdrawal_proof_days: int = Field(3 * 365, ge=1)
    """The same for subjects who never agreed: the time in which a complaint may lead to a fine."""
    consent_origin_days: int = Field(365, ge=1)
    """Client address and browser of each entry. They
    reveal abuse of the forms and support a disputed proof, which is disputed soon or never.
    Wording, time and mailed link are the proof itself."""
    unconfirmed_erasure_days: int = Field(365, ge=7)
    """Staff see it, and answer it within a month (Art. 12(3) GDPR)."""
    action_retention_days: int = Field(5 * 365, ge=366)
    """Of the former admin calls (decision 53)."""
    erasure_link_hours: int = Field(24, ge=1, le=24 * 7)
    double_opt_in: bool = True
    """Every agreement waits for the mailed confirmation, not only that of a suppressed address. An
    import with evidence of where it was given does not wait."""
    opt_in_link_days: int = Field(7, ge=1, le=30)
    erasure_resend_seconds: float = Field(3600, ge=1)
    """How long the other services have to confirm an erasure before it is ordered again."""
    export_seconds: float = Field(10, gt=0, le=30)
    """How long an export waits for each of the other services."""

    @property
    def site(self) -> str:
        """The host name by which visitors know the company's site."""
        return urlsplit(self.public_base_url).netloc

    @property
    def retention(self) -> dict[str, int]:
        """In days, as the statements of the purge name them."""
        return {
            "suppressions": self.suppression_retention_days,
            "unconfirmed_erasures": self.unconfirmed_erasure_days,
            "proofs": self.consent_proof_days,
            "withdrawals": self.withdrawal_proof_days,
            "origins": self.consent_origin_days,
            "calls": self.action_retention_days,
        }

    def vault(self) -> Vault:
        return Vault(
            self.consent_master_keys.get_secret_value(), self.consent_hash_key.get_secret_value()
        )

    def signer(self) -> Signer:
        return Signer(self.consent_checkpoint_keys.get_secret_value())

    @property
    def checkpoint_file(self) -> AppendOnlyFile:
        return AppendOnlyFile(self.consent_records_dir / "checkpoints.jsonl")

    @property
    def verification_file(self) -> AppendOnlyFile:
        return AppendOnlyFile(self.consent_records_dir / "verifications.jsonl")

    @property
    def withdrawal_files(self) -> list[AppendOnlyFile]:
        """This host's file, and its copy elsewhere."""
        folders = (self.consent_records_dir, self.consent_records_copy)
        return [AppendOnlyFile(each / "withdrawals.jsonl") for each in folders if each]
