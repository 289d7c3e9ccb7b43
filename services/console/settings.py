"""The environment of the console."""

from urllib.parse import urlsplit

from pydantic import Field

from libs.common.process.settings import DatabaseSettings, ServiceSettings


class ConsoleSettings(ServiceSettings, DatabaseSettings):
    public_base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    session_idle_seconds: int = Field(1800, ge=60)
    session_seconds: int = Field(43200, ge=300)
    action_retention_days: int = Field(5 * 365, ge=366)
    """Retention of the record of acts; the table enforces at least a year."""
    escalation_email: str = "ops@example.com"
    """Whom the first invitation makes an admin."""

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
