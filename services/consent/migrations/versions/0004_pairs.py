"""Consent by purpose and channel: permits name theirs; pauses and caps; withdrawals of all."""

from libs.common.database.migrate import execute_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    execute_beside(__file__)
