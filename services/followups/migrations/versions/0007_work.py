"""What staff do with a lead: notes, calls, corrections, and who has it; counts of leads."""

from alembic import op

from libs.common.database.migrate import create_index_concurrently, execute_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE lead ADD COLUMN IF NOT EXISTS call_at timestamptz, "
        "ADD COLUMN IF NOT EXISTS reminded_at timestamptz, "
        "ADD COLUMN IF NOT EXISTS answered_at timestamptz"
    )
    create_index_concurrently(
        "lead_state_created", "lead (state, created_at, id) INCLUDE (topic, owner)"
    )
    create_index_concurrently("lead_won", "lead (state_at) WHERE state = 'won'")
    create_index_concurrently("lead_call", "lead (call_at) WHERE call_at IS NOT NULL")
    execute_beside(__file__)
