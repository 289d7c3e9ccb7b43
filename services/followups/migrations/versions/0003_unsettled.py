"""Handed-over follow-ups and those in doubt, which the console lists in their order."""

from libs.common.database.migrate import create_index_concurrently

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index_concurrently(
        "followup_event_unsettled",
        "followup_event (status, due_at, id) WHERE status IN ('handed_over', 'in_doubt')",
    )
