"""The environment of the console."""

from pydantic import Field

from libs.common.process.settings import DatabaseSettings, ServiceSettings


class ConsoleSettings(ServiceSettings, DatabaseSettings):
    action_retention_days: int = Field(5 * 365, ge=366)
    """Retention of the record of acts; the table enforces at least a year."""
