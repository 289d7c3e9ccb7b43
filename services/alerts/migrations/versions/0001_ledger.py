"""The ledger: one row per (alert, target), every attempt, what was purged, who is to be told."""

from alembic import op

from libs.common import outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE delivery (
    alert_id uuid NOT NULL,
    target text NOT NULL,
    event_type text NOT NULL,
    severity text NOT NULL,
    source text NOT NULL,
    payload jsonb,
    dedup_key text,
    request_id text,
    accepted_at timestamptz NOT NULL,
    once_address text,
    once_purpose text,
    once_reference text,
    created_at timestamptz NOT NULL DEFAULT now(),
    state text NOT NULL,
    reason text,
    error text,
    operator text,
    turn integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    spent integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,
    last_attempt_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (alert_id, target),
    CONSTRAINT delivery_state_known CHECK (state IN (
        'pending', 'claimed', 'sending', 'delivered', 'failed', 'discarded', 'in_doubt')),
    CONSTRAINT delivery_leased_while_owned CHECK (
        (state IN ('claimed', 'sending')) = (lease_until IS NOT NULL)),
    CONSTRAINT delivery_finished_at_its_end CHECK (
        (state IN ('delivered', 'failed', 'discarded', 'in_doubt')) = (finished_at IS NOT NULL)),
    CONSTRAINT delivery_tried_before CHECK (
        attempt > 0 OR state IN ('pending', 'failed', 'discarded')),
    CONSTRAINT delivery_ends_with_a_reason CHECK (
        reason IS NOT NULL OR state IN ('pending', 'claimed', 'sending')),
    CONSTRAINT delivery_counts CHECK (turn >= 0 AND spent >= 0 AND attempt >= spent),
    CONSTRAINT delivery_once_whole CHECK (
        num_nonnulls(once_address, once_purpose, once_reference) IN (0, 3)),
    CONSTRAINT delivery_once_states CHECK (
        once_address IS NOT NULL OR state NOT IN ('claimed', 'in_doubt')),
    CONSTRAINT delivery_payload_is_an_object CHECK (jsonb_typeof(payload) = 'object'),
    CONSTRAINT delivery_payload_until_its_end CHECK (
        payload IS NOT NULL OR state IN ('delivered', 'failed', 'discarded', 'in_doubt'))
);
CREATE INDEX delivery_open ON delivery (created_at, alert_id, target)
    WHERE state IN ('pending', 'claimed', 'sending');
CREATE INDEX delivery_kept ON delivery (state, created_at, alert_id, target)
    WHERE state IN ('failed', 'in_doubt', 'discarded');
CREATE INDEX delivery_delivered ON delivery (finished_at) WHERE state = 'delivered';

CREATE TABLE attempt (
    alert_id uuid NOT NULL,
    target text NOT NULL,
    number integer NOT NULL,
    outcome text NOT NULL,
    reason text NOT NULL,
    status integer,
    seconds real NOT NULL,
    excerpt text NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (alert_id, target, number),
    FOREIGN KEY (alert_id, target) REFERENCES delivery ON DELETE CASCADE,
    CONSTRAINT attempt_outcome_known CHECK (
        outcome IN ('delivered', 'failed', 'never', 'later', 'unknown')),
    CONSTRAINT attempt_excerpt_bounded CHECK (length(excerpt) <= 500)
);

CREATE TABLE ledger_total (
    target text PRIMARY KEY,
    accepted bigint NOT NULL DEFAULT 0,
    delivered bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    discarded bigint NOT NULL DEFAULT 0,
    CONSTRAINT ledger_total_purged_no_more_than_accepted CHECK (
        least(delivered, failed, discarded) >= 0
        AND delivered + failed + discarded <= accepted)
);
COMMENT ON TABLE ledger_total IS
    'accepted counts every row ever written; the others only rows that were purged';

CREATE TABLE escalation (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id uuid NOT NULL,
    target text NOT NULL,
    event_type text NOT NULL,
    reason text NOT NULL,
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    digest uuid
);
CREATE INDEX escalation_untold ON escalation (target, created_at) WHERE digest IS NULL;
CREATE INDEX escalation_digest ON escalation (digest) WHERE digest IS NOT NULL;
COMMENT ON COLUMN escalation.digest IS 'the alert that tells a person of it';

CREATE TABLE epoch (
    single boolean PRIMARY KEY DEFAULT true,
    id uuid NOT NULL,
    CONSTRAINT epoch_single CHECK (single)
);
"""

# What ops tools of the trade expect: those that failed at least once. The indexes serve the view
# as long as both say the same, literally.
SHOWN = "error IS NOT NULL AND state NOT IN ('discarded', 'in_doubt')"
DEAD_LETTER_QUEUE = f"""
CREATE FUNCTION dead_letter_status(state text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN state IN ('pending', 'claimed', 'sending') THEN 'pending' ELSE state END;

CREATE VIEW dead_letter_queue AS
SELECT
    alert_id AS id,
    event_type,
    target,
    payload,
    error AS error_message,
    greatest(spent - 1, 0) AS retry_count,
    dead_letter_status(state) AS status,
    created_at,
    last_attempt_at AS last_retry_at
FROM delivery
WHERE {SHOWN};

CREATE INDEX dead_letter_queue_status_created
    ON delivery (dead_letter_status(state), created_at) WHERE {SHOWN};
CREATE INDEX dead_letter_queue_created ON delivery (created_at) WHERE {SHOWN};
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(DEAD_LETTER_QUEUE)
    outbox.upgrade(op)
