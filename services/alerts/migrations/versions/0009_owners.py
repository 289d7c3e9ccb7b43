"""What owners of cases ask for: to be reminded, and to hand over."""

from libs.common.database.migrate import execute_beside

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    execute_beside(__file__)
