"""The running numbers of what each gateway process handed to intake."""

from libs.common.database.migrate import execute_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    execute_beside(__file__)
