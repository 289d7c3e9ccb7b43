"""People disabled for a year are erased; the record keeps a number in place of their name."""

from libs.common.database.migrate import execute_beside

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    execute_beside(__file__)
