"""Mails to people, their second factors, and what gateways store about people for a restore."""

from alembic import op

from libs.common.database.migrate import execute_beside
from libs.common.messaging import outbox

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    execute_beside(__file__)
    outbox.upgrade(op)
