"""Submissions of forms, and for a week who was erased."""

from libs.common.database.migrate import execute_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    execute_beside(__file__)
