"""Conversations, their messages, follow-ups and leads."""

from alembic import op

from libs.common.database.migrate import execute_beside
from libs.common.messaging import inbox, outbox

revision = "0001"
down_revision = None


def upgrade() -> None:
    outbox.upgrade(op)
    inbox.upgrade(op)
    execute_beside(__file__)
