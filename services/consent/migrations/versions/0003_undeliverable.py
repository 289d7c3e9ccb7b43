"""Addresses to which followups sends nothing more, because their mail comes back."""

from libs.common.database.migrate import execute_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    execute_beside(__file__)
