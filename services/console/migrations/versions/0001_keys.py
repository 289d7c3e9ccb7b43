"""The record of acts, and API keys with their versions and readers."""

from libs.common.database.migrate import execute_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    execute_beside(__file__)
