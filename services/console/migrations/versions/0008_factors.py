"""Mails to people, their second factors, and what gateways hold of people for a restore."""

from alembic import op

from libs.common.messaging import outbox

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    outbox.upgrade(op)
    op.execute(
        "ALTER TABLE staff ADD COLUMN proof_at timestamptz, ADD COLUMN factor bytea, "
        "ADD COLUMN factor_step bigint, ADD COLUMN recovery bytea[]; "
        "ALTER TABLE key_restore ADD COLUMN people jsonb;"
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
