-- The ledger: deliveries and their attempts, totals, escalations, incidents, breakers.
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
    generation integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,
    last_attempt_at timestamptz,
    finished_at timestamptz,
    duplicates integer NOT NULL DEFAULT 0,
    requeued_at timestamptz,
    subjects bytea[] NOT NULL DEFAULT '{}',
    once_not_after timestamptz,
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
    CONSTRAINT delivery_counts CHECK (generation >= 0 AND attempts >= 0 AND attempt >= attempts),
    CONSTRAINT delivery_once_whole CHECK (
        num_nonnulls(once_address, once_purpose, once_reference) IN (0, 3)),
    CONSTRAINT delivery_once_states CHECK (
        once_address IS NOT NULL OR state NOT IN ('claimed', 'in_doubt')),
    CONSTRAINT delivery_payload_is_an_object CHECK (jsonb_typeof(payload) = 'object'),
    CONSTRAINT delivery_payload_until_its_end CHECK (
        payload IS NOT NULL OR state IN ('delivered', 'failed', 'discarded', 'in_doubt'))
);
COMMENT ON COLUMN delivery.requeued_at IS
    'when an operator last requeued it; its age counts from then';
COMMENT ON COLUMN delivery.subjects IS
    'keyed hashes of the data subjects it names (subjects.py)';
COMMENT ON COLUMN delivery.once_not_after IS 'the end of its sending window';

-- Their last columns let the index filter by target and event type without reading the table.
CREATE INDEX delivery_open ON delivery (created_at, alert_id, target, event_type)
    WHERE state IN ('pending', 'claimed', 'sending');
CREATE INDEX delivery_kept ON delivery (state, created_at, alert_id, target, event_type)
    WHERE state IN ('failed', 'in_doubt', 'discarded');
CREATE INDEX delivery_delivered ON delivery (finished_at) WHERE state = 'delivered';
CREATE INDEX delivery_due ON delivery (target, due_at)
    WHERE state IN ('pending', 'claimed', 'sending');
CREATE INDEX delivery_abandoned ON delivery (lease_until)
    WHERE state = 'sending' AND once_address IS NOT NULL;
CREATE INDEX delivery_payload ON delivery (finished_at)
    WHERE state IN ('failed', 'in_doubt', 'discarded') AND payload IS NOT NULL;
CREATE INDEX delivery_critical ON delivery (target, created_at)
    WHERE state = 'pending' AND severity = 'critical';
CREATE INDEX delivery_dedup ON delivery (dedup_key, target, accepted_at)
    WHERE dedup_key IS NOT NULL;
CREATE INDEX delivery_subjects ON delivery USING gin (subjects) WHERE subjects <> '{}';

-- The default, a fifth of ten million rows, leaves too many dead ones: an index-only count needs
-- pages that are marked all-visible.
ALTER TABLE delivery SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);

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
    'alerts counted on the first of their dedup_key instead of sent';

CREATE TABLE ledger_total (
    target text PRIMARY KEY,
    accepted bigint NOT NULL DEFAULT 0,
    delivered bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    discarded bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    purged_until timestamptz,
    CONSTRAINT ledger_total_purged_no_more_than_accepted CHECK (
        least(delivered, failed, discarded) >= 0
        AND delivered + failed + discarded <= accepted)
);
COMMENT ON TABLE ledger_total IS
    'accepted counts every row ever written, duplicates the alerts without a row of their own; '
    'the others count purged rows only';
COMMENT ON COLUMN ledger_total.purged_until IS
    'rows that ended by then may be purged; a younger message without its row is a fault';

CREATE TABLE ledger_check (
    single boolean PRIMARY KEY DEFAULT true,
    at timestamptz NOT NULL DEFAULT '-infinity',
    found jsonb,
    CONSTRAINT ledger_check_single CHECK (single)
);
COMMENT ON TABLE ledger_check IS 'result of the last check, for the metrics of every replica';
INSERT INTO ledger_check DEFAULT VALUES;

CREATE TABLE escalation (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id uuid NOT NULL,
    target text NOT NULL,
    event_type text NOT NULL,
    reason text NOT NULL,
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    digest uuid,
    send_failed_at timestamptz,
    send_failures integer NOT NULL DEFAULT 0
);
CREATE INDEX escalation_unsent ON escalation (target, created_at) WHERE digest IS NULL;
CREATE INDEX escalation_alert ON escalation (alert_id, target);
CREATE INDEX escalation_digest ON escalation (digest) WHERE digest IS NOT NULL;
COMMENT ON COLUMN escalation.digest IS 'the alert whose mail reports it';
COMMENT ON COLUMN escalation.send_failed_at IS 'when the last mail that reported it failed';
COMMENT ON COLUMN escalation.send_failures IS 'how many such mails failed';

CREATE TABLE incident (
    kind text NOT NULL,
    target text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    number bigint NOT NULL DEFAULT 0,
    notified_at timestamptz,
    digest uuid,
    send_failed_at timestamptz,
    send_failures integer NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, target),
    CONSTRAINT incident_kind_known CHECK (kind IN ('breaker', 'pending', 'in_doubt', 'unread'))
);
COMMENT ON TABLE incident IS
    'open incidents; breaker: it opened, and nothing has been delivered since';
COMMENT ON COLUMN incident.digest IS 'the alert whose mail reported it';
COMMENT ON COLUMN incident.send_failed_at IS 'when the last mail that reported it failed';
COMMENT ON COLUMN incident.send_failures IS 'how many such mails failed in a row';

CREATE TABLE breaker (
    target text PRIMARY KEY,
    state text NOT NULL DEFAULT 'closed',
    failures integer NOT NULL DEFAULT 0,
    next_trial_at timestamptz,
    trial_by uuid,
    paused_until timestamptz,
    CONSTRAINT breaker_state_known CHECK (state IN ('closed', 'open', 'half_open')),
    CONSTRAINT breaker_trial_whole CHECK ((state = 'half_open') = (trial_by IS NOT NULL)),
    CONSTRAINT breaker_open_until CHECK ((state = 'closed') = (next_trial_at IS NULL))
);
COMMENT ON COLUMN breaker.next_trial_at IS 'half open: when its process counts as dead';

CREATE TABLE replica (
    process uuid PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE erased_subject (
    hash bytea PRIMARY KEY,
    erased_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE erased_subject IS
    'tombstones: alerts about them that were accepted earlier are stored empty';

CREATE TABLE epoch (
    single boolean PRIMARY KEY DEFAULT true,
    id uuid NOT NULL,
    CONSTRAINT epoch_single CHECK (single)
);

-- The relation that operations tools expect: deliveries that failed at least once. The planner uses
-- the indexes for the view only while both have its condition literally.
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
    greatest(attempts - 1, 0) AS retry_count,
    dead_letter_status(state) AS status,
    created_at,
    last_attempt_at AS last_retry_at
FROM delivery
WHERE error IS NOT NULL AND state NOT IN ('discarded', 'in_doubt');

CREATE INDEX dead_letter_queue_status_created
    ON delivery (dead_letter_status(state), created_at) WHERE error IS NOT NULL AND state NOT IN ('discarded', 'in_doubt');
CREATE INDEX dead_letter_queue_created ON delivery (created_at) WHERE error IS NOT NULL AND state NOT IN ('discarded', 'in_doubt');

\ir ../../../../libs/common/messaging/outbox_table.sql
