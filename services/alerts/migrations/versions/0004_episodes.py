"""Whose an alert is, whether it says that others are over, and cases whose timer fails."""

from libs.common.database.migrate import execute_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    execute_beside(__file__)
