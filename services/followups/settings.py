from pathlib import Path
from re import fullmatch
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr

from libs.common.process.settings import StoringSettings, readable_by
from libs.domain.company import CompanySettings
from libs.domain.signed_links import parse_keys


def _returns(address: str) -> None:
    # With `+` and a token the local part has 64 characters at most (RFC 5321).
    if not fullmatch(r"[a-z0-9._-]{1,20}@[a-z0-9.-]+", address):
        raise ValueError("needs local@domain in small letters, local of 20 at most")


_LOCAL = {"localhost", "127.0.0.1", "::1"}


def parse_mailbox(url: str) -> tuple[bool, str, int, str, str, str]:
    """Read `imaps://user:password@host[:port]/INBOX`: TLS, host, port, user, password, folder.

    :raises ValueError: names the fault, not the URL
    """
    parts = urlsplit(url)
    tls = parts.scheme == "imaps"
    if not tls and not (parts.scheme == "imap" and parts.hostname in _LOCAL):
        raise ValueError("needs imaps://; imap:// is for this host only")
    if not (parts.hostname and parts.username and parts.password):
        raise ValueError("needs user, password and host")
    try:
        port = parts.port or (993 if tls else 143)
    except ValueError:  # it would quote a part of the password
        raise ValueError("the port is no number; in a password write / as %2F") from None
    user, password = unquote(parts.username), unquote(parts.password)
    return tls, parts.hostname, port, user, password, unquote(parts.path.lstrip("/")) or "INBOX"


class FollowupsSettings(StoringSettings, CompanySettings):
    token_keys: Annotated[SecretStr, readable_by(parse_keys)]
    public_base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    bounce_address: Annotated[str, readable_by(_returns)] = ""
    """Of the return path, if its mailbox also takes `local+anything@domain`."""
    inbox_url: Annotated[SecretStr, readable_by(parse_mailbox)] = SecretStr("")
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
