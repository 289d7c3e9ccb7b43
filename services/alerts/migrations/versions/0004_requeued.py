"""Since when a row that a person handed out again is tried: its age begins anew with that."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Nullable and without a default: no row is written, however many there are.
REQUEUED = """
ALTER TABLE delivery ADD COLUMN requeued_at timestamptz;
COMMENT ON COLUMN delivery.requeued_at IS
    'when a person last handed it out again; its age counts from then';
"""


def upgrade() -> None:
    op.execute(REQUEUED)
