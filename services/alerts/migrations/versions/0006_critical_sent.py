"""Critical alerts whose worker died while it sent them, for the fallback."""

from alembic import op

from libs.common.database.migrate import create_index_concurrently

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE attempt VALIDATE CONSTRAINT attempt_outcome_known")
    create_index_concurrently(
        "delivery_critical_sent",
        "delivery (target) WHERE state = 'sending' AND severity = 'critical'",
    )
