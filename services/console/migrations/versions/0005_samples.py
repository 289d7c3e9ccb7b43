"""The numbers behind the charts of targets."""

from libs.common.database.migrate import execute_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    execute_beside(__file__)
