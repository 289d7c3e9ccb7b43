"""The numbers behind the charts of targets."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SAMPLE = """
CREATE TABLE sample (
    at timestamptz NOT NULL,
    target text NOT NULL,
    pending bigint NOT NULL,
    delivered bigint NOT NULL,
    failed bigint NOT NULL,
    PRIMARY KEY (at, target)
);
"""


def upgrade() -> None:
    op.execute(SAMPLE)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
