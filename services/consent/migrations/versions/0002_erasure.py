"""Erasure beyond this service: who has reported back, and what is left once the person is gone."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# From the confirmation on the row must not lead to the person's trail any more: it keeps the
# suppression list's hash of the address, and so answers "what became of it" when asked by address.
ERASURE = """
ALTER TABLE erasure
    ALTER COLUMN person_id DROP NOT NULL,
    ADD COLUMN address_hash bytea,
    ADD COLUMN mailed_at timestamptz;
UPDATE erasure SET person_id = NULL WHERE status <> 'awaiting_confirmation';
ALTER TABLE erasure ADD CONSTRAINT erasure_unlinked_once_confirmed CHECK (
    (status = 'awaiting_confirmation') = (person_id IS NOT NULL));
CREATE INDEX erasure_address ON erasure (address_hash, requested_at);
CREATE INDEX erasure_finished ON erasure (finished_at);

CREATE TABLE erasure_receipt (
    erasure_id uuid NOT NULL REFERENCES erasure ON DELETE CASCADE,
    service text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (erasure_id, service)
);
REVOKE UPDATE ON erasure_receipt FROM consent;
GRANT DELETE ON erasure TO consent;
"""


def upgrade() -> None:
    op.execute(ERASURE)


def downgrade() -> None:
    raise NotImplementedError("the trail cannot be taken back; restore a backup instead")
