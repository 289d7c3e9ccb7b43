"""Erasure's order, kept sealed until every service has carried it out."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The table itself refuses to know an address once it is needed no more.
ORDERS = """
ALTER TABLE erasure
    ADD COLUMN master_key_id text,
    ADD COLUMN sealed_address bytea,
    ADD COLUMN ordered_at timestamptz,
    ADD CONSTRAINT erasure_sealed_while_in_progress CHECK (
        num_nonnulls(master_key_id, sealed_address) = 0
        OR (num_nonnulls(master_key_id, sealed_address, ordered_at) = 3
            AND status = 'in_progress')
    );
CREATE INDEX erasure_in_progress ON erasure (requested_at) WHERE status = 'in_progress';
"""


def upgrade() -> None:
    op.execute(ORDERS)


def downgrade() -> None:
    raise NotImplementedError("the trail cannot be taken back; restore a backup instead")
