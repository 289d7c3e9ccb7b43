"""Silences of any alert: matchers, critical ones, and those that come back each week."""

from libs.common.database.migrate import execute_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    execute_beside(__file__)
