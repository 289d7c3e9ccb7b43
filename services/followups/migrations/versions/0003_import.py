"""By which message consent was told of the agreement that came with an imported lead."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE chat_conversations ADD COLUMN imported_grant uuid")
