"""Mail that came back, addresses that take none, and how far a shared mailbox was read."""

from libs.common.database.migrate import create_index_concurrently, execute_beside

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    create_index_concurrently(
        "followup_event_sent", "followup_event (sent_at) WHERE sent_at IS NOT NULL"
    )
    execute_beside(__file__)
