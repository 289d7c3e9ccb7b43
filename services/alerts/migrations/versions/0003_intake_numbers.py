"""The running numbers of the alerts that each gateway process sent to intake."""

from libs.common.database.migrate import execute_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    execute_beside(__file__)
