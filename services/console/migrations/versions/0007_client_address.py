"""From which address a key was used."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE staff_action ADD COLUMN client_address text")


def downgrade() -> None:
    raise NotImplementedError("the record cannot be taken back; restore a backup instead")
