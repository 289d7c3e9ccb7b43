"""Ten million delivered rows beside what is open; repeats of an alert; the memo of the check."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Their last columns are there to be filtered by: rows of other targets and types are passed over in
# the index, not read from the table.
LISTS = """
DROP INDEX delivery_open;
CREATE INDEX delivery_open ON delivery (created_at, alert_id, target, event_type)
    WHERE state IN ('pending', 'claimed', 'sending');
DROP INDEX delivery_kept;
CREATE INDEX delivery_kept ON delivery (state, created_at, alert_id, target, event_type)
    WHERE state IN ('failed', 'in_doubt', 'discarded');
"""

UPKEEP = """
CREATE INDEX delivery_due ON delivery (target, due_at)
    WHERE state IN ('pending', 'claimed', 'sending');
CREATE INDEX delivery_abandoned ON delivery (lease_until)
    WHERE state = 'sending' AND once_address IS NOT NULL;
CREATE INDEX delivery_payload ON delivery (finished_at)
    WHERE state IN ('failed', 'in_doubt', 'discarded') AND payload IS NOT NULL;
CREATE INDEX escalation_alert ON escalation (alert_id, target);

-- A fifth of ten million dead rows is too many: a count by the index alone wants clean pages.
ALTER TABLE delivery SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
"""

DUPLICATES = """
ALTER TABLE delivery ADD COLUMN duplicates integer NOT NULL DEFAULT 0;
ALTER TABLE ledger_total ADD COLUMN duplicates bigint NOT NULL DEFAULT 0;
COMMENT ON TABLE ledger_total IS
    'accepted counts every row ever written, duplicates what none was written for; the others only '
    'rows that were purged';
CREATE INDEX delivery_dedup ON delivery (dedup_key, target, accepted_at)
    WHERE dedup_key IS NOT NULL;

CREATE TABLE duplicate (
    alert_id uuid NOT NULL,
    target text NOT NULL,
    first_id uuid NOT NULL,
    request_id text,
    accepted_at timestamptz NOT NULL,
    PRIMARY KEY (alert_id, target),
    FOREIGN KEY (first_id, target) REFERENCES delivery (alert_id, target) ON DELETE CASCADE,
    CONSTRAINT duplicate_of_another CHECK (first_id <> alert_id)
);
CREATE INDEX duplicate_first ON duplicate (first_id, target);
COMMENT ON TABLE duplicate IS
    'alerts that were counted on the first of their dedup_key instead of sent';
"""

COUNTED = """
CREATE TABLE ledger_count (
    single boolean PRIMARY KEY DEFAULT true,
    until timestamptz NOT NULL DEFAULT '-infinity',
    delivered bigint NOT NULL DEFAULT 0,
    CONSTRAINT ledger_count_single CHECK (single),
    CONSTRAINT ledger_count_positive CHECK (delivered >= 0)
);
COMMENT ON TABLE ledger_count IS
    'how many delivered rows are there that finished before that time';
INSERT INTO ledger_count DEFAULT VALUES;
"""


def upgrade() -> None:
    for statements in (LISTS, UPKEEP, DUPLICATES, COUNTED):
        op.execute(statements)
