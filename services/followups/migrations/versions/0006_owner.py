"""A form names its lead, and a lead who has it."""

from alembic import op

from libs.common.database.migrate import create_index_concurrently, execute_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("ALTER TABLE lead_submission ADD COLUMN IF NOT EXISTS lead_id uuid")
    create_index_concurrently("lead_submission_lead_id", "lead_submission (lead_id)")
    execute_beside(__file__)
