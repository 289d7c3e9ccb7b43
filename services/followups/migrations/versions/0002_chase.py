"""Why a person is not chased any more."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE chat_conversations ADD COLUMN chase_ended_by text "
        "CONSTRAINT chat_conversations_chase_ended_by CHECK (chase_ended_by IN ('bounce', 'staff'))"
    )
