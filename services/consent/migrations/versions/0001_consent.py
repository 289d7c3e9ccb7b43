"""The tables of consent: data subjects, their consent and permits, erasures, the audit trail."""

from alembic import op

from libs.common.database.migrate import execute_beside
from libs.common.messaging import inbox, outbox

revision = "0001"
down_revision = None


def upgrade() -> None:
    execute_beside(__file__)
    outbox.upgrade(op)
    inbox.upgrade(op)
