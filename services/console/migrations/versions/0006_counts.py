"""How many rows an act of another service changed."""

from libs.common.database.migrate import execute_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    execute_beside(__file__)
