"""Old conversations are found by when they were last spoken in."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX chat_conversations_updated ON chat_conversations (updated_at)")
