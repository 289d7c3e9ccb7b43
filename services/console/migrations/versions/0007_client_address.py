"""From which address a key was used."""

from libs.common.database.migrate import execute_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    execute_beside(__file__)
