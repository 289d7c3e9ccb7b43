"""A lead's consent is what the consent service says, not what was said in the chat."""

from libs.common.database.migrate import execute_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    execute_beside(__file__)
