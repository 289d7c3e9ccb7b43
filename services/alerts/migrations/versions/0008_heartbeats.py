"""Heartbeats of jobs, by a ping URL, in one table with those of event types."""

from libs.common.database.migrate import execute_beside

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    execute_beside(__file__)
