"""Which of two outcomes of a step is the later: a person may retry what failed."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE followup_event ADD COLUMN settled_at timestamptz")
