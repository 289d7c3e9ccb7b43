"""How many rows an act of another service changed."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE staff_action ADD COLUMN count bigint")


def downgrade() -> None:
    raise NotImplementedError("the record cannot be taken back; restore a backup instead")
