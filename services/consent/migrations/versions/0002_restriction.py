"""Restriction of processing (Art. 18 GDPR): since when, and what was held then, sealed."""

from libs.common.database.migrate import execute_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    execute_beside(__file__)
