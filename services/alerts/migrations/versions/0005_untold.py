"""When the mail that told of it failed last, and how many have: the next waits longer each time."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNTOLD = """
ALTER TABLE escalation
    ADD COLUMN untold_at timestamptz,
    ADD COLUMN untold integer NOT NULL DEFAULT 0;
ALTER TABLE trouble
    ADD COLUMN untold_at timestamptz,
    ADD COLUMN untold integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN escalation.untold_at IS 'when the mail that told of it failed last';
COMMENT ON COLUMN escalation.untold IS 'how many have';
COMMENT ON COLUMN trouble.untold_at IS 'when the mail that told of it failed last';
COMMENT ON COLUMN trouble.untold IS 'how many have, in a row';
"""


def upgrade() -> None:
    op.execute(UNTOLD)
