"""The ledger: deliveries and their attempts, totals, escalations, incidents, breakers."""

from alembic import op

from libs.common.database.migrate import execute_beside
from libs.common.messaging import outbox

revision = "0001"
down_revision = None


def upgrade() -> None:
    execute_beside(__file__)
    outbox.upgrade(op)
