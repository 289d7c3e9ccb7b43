"""Retries and discards of many alerts."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BULK = """
CREATE TABLE bulk_action (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    staff_id uuid NOT NULL REFERENCES staff,
    verb text NOT NULL CONSTRAINT bulk_action_verb_known CHECK (verb IN ('retry', 'discard')),
    filter jsonb NOT NULL,
    reason text NOT NULL,
    expected integer NOT NULL,
    done integer NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'running' CONSTRAINT bulk_action_state_known
        CHECK (state IN ('running', 'done', 'stopped', 'refused')),
    lease_until timestamptz,
    ended_at timestamptz,
    CONSTRAINT bulk_action_ended CHECK ((state = 'running') = (ended_at IS NULL))
);
CREATE INDEX bulk_action_running ON bulk_action (at) WHERE state = 'running';
"""


def upgrade() -> None:
    op.execute(BULK)
    op.execute("REVOKE DELETE ON bulk_action FROM console;")


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
