-- The tables of consent: data subjects, their consent and permits, erasures, the audit trail.
CREATE TABLE data_subject (
    id uuid PRIMARY KEY,
    lookup_hash bytea CONSTRAINT data_subject_lookup_hash UNIQUE,
    master_key_id text,
    wrapped_key bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    erased_at timestamptz,
    CONSTRAINT data_subject_known_or_erased CHECK (
        num_nonnulls(lookup_hash, master_key_id, wrapped_key)
        = CASE WHEN erased_at IS NULL THEN 3 ELSE 0 END
    )
);
CREATE INDEX data_subject_created ON data_subject (created_at) WHERE erased_at IS NULL;

CREATE TABLE consent_state (
    subject_id uuid NOT NULL REFERENCES data_subject,
    purpose text NOT NULL,
    state text NOT NULL
        CONSTRAINT consent_state_known CHECK (state IN ('granted', 'withdrawn')),
    version bigint NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL,
    withdrawn_at timestamptz,
    PRIMARY KEY (subject_id, purpose),
    CONSTRAINT consent_state_withdrawal_dated
        CHECK (state <> 'withdrawn' OR withdrawn_at IS NOT NULL)
);

CREATE TABLE permit (
    message uuid NOT NULL,
    attempt integer NOT NULL,
    subject_id uuid REFERENCES data_subject,
    granted_at timestamptz,
    returned_at timestamptz,
    PRIMARY KEY (message, attempt),
    CONSTRAINT permit_granted_or_tombstone CHECK (
        num_nonnulls(subject_id, granted_at) = 2
        OR (num_nonnulls(subject_id, granted_at) = 0 AND returned_at IS NOT NULL)
    )
);
CREATE INDEX permit_unreturned ON permit (subject_id) WHERE returned_at IS NULL;
CREATE INDEX permit_age ON permit (coalesce(granted_at, returned_at));

CREATE TABLE suppression (
    suppression_hash bytea NOT NULL,
    purpose text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    keep_until timestamptz NOT NULL,
    never_ask boolean NOT NULL DEFAULT false,
    PRIMARY KEY (suppression_hash, purpose)
);
CREATE INDEX suppression_keep_until ON suppression (keep_until);

-- The agreement is sealed by the subject's own key: erasing the subject erases it.
CREATE TABLE opt_in (
    id uuid PRIMARY KEY,
    subject_id uuid NOT NULL REFERENCES data_subject,
    purpose text NOT NULL,
    agreement bytea NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX opt_in_subject ON opt_in (subject_id);
CREATE INDEX opt_in_asked_at ON opt_in (asked_at);

CREATE TABLE link_mail (
    suppression_hash bytea NOT NULL,
    kind text NOT NULL CONSTRAINT link_mail_kind_known CHECK (kind IN ('erasure', 'opt-in')),
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    count integer NOT NULL,
    PRIMARY KEY (suppression_hash, kind)
);
CREATE INDEX link_mail_last_at ON link_mail (last_at);

CREATE TABLE hash_key (position integer PRIMARY KEY, fingerprint text NOT NULL);

-- Once confirmed, an erasure must not lead to the subject's trail: it keeps only the suppression
-- hash, and answers "what became of it" by that. The table refuses a sealed order once it is done.
CREATE TABLE erasure (
    id uuid PRIMARY KEY,
    subject_id uuid CONSTRAINT erasure_subject UNIQUE REFERENCES data_subject,
    status text NOT NULL CONSTRAINT erasure_status_known
        CHECK (status IN ('awaiting_confirmation', 'in_progress', 'done')),
    requested_at timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz,
    finished_at timestamptz,
    suppression_hash bytea,
    master_key_id text,
    sealed_subject bytea,
    ordered_at timestamptz,
    CONSTRAINT erasure_dated CHECK (
        (status <> 'awaiting_confirmation') = (confirmed_at IS NOT NULL)
        AND (status = 'done') = (finished_at IS NOT NULL)
    ),
    CONSTRAINT erasure_unlinked_once_confirmed CHECK (
        (status = 'awaiting_confirmation') = (subject_id IS NOT NULL)
    ),
    CONSTRAINT erasure_sealed_while_in_progress CHECK (
        num_nonnulls(master_key_id, sealed_subject) = 0
        OR (num_nonnulls(master_key_id, sealed_subject, ordered_at) = 3
            AND status = 'in_progress')
    )
);
CREATE INDEX erasure_suppression_hash ON erasure (suppression_hash, requested_at);
CREATE INDEX erasure_finished ON erasure (finished_at);
CREATE INDEX erasure_in_progress ON erasure (requested_at) WHERE status = 'in_progress';

CREATE TABLE erasure_receipt (
    erasure_id uuid NOT NULL REFERENCES erasure ON DELETE CASCADE,
    service text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (erasure_id, service)
);

-- A position of the trail that a host has noted and that a restored database lacks.
CREATE TABLE restore (
    rows bigint NOT NULL,
    hash bytea NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT now(),
    replayed_at timestamptz,
    PRIMARY KEY (rows, hash)
);

CREATE TABLE consent_audit_log (
    id bigint PRIMARY KEY,
    subject_id uuid NOT NULL REFERENCES data_subject,
    action text NOT NULL CONSTRAINT consent_audit_log_action_known CHECK (action IN (
        'opt-in', 'unsubscribe', 'revoke-consent', 'erasure-requested', 'erased', 'export'
    )),
    "timestamp" timestamptz NOT NULL,
    email bytea NOT NULL,
    ip_address bytea,
    user_agent bytea,
    reason bytea,
    session_id bytea,
    evidence bytea,
    hash bytea NOT NULL
);
CREATE INDEX consent_audit_log_subject_timestamp ON consent_audit_log (subject_id, "timestamp");
CREATE INDEX consent_audit_log_timestamp ON consent_audit_log ("timestamp");

CREATE TABLE trail_origin (
    hash bytea PRIMARY KEY GENERATED ALWAYS AS (sha256(sealed)) STORED,
    sealed bytea NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX trail_origin_written_at ON trail_origin (written_at);

-- The lock for appending. Its row is never updated: while a backup kept dead versions of it,
-- each append would read them all.
CREATE TABLE trail_head (
    single boolean PRIMARY KEY DEFAULT true CONSTRAINT trail_head_single CHECK (single)
);
INSERT INTO trail_head DEFAULT VALUES;

-- Numbers and chains each row under the lock of the head, which lasts until the commit.
-- As the owner: the runtime role can choose neither an id, nor a time, nor a hash.
CREATE FUNCTION trail_link() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = consent, pg_temp AS $$
DECLARE
    last record;
BEGIN
    PERFORM FROM trail_head FOR UPDATE;
    -- A statement of its own: it sees the rows of whoever held the lock before.
    SELECT id, hash INTO last FROM consent_audit_log ORDER BY id DESC LIMIT 1;
    NEW.id := coalesce(last.id, 0) + 1;
    NEW."timestamp" := clock_timestamp();
    NEW.hash := sha256(coalesce(last.hash, decode(repeat('00', 32), 'hex')) || record_send(ROW(
        NEW.id, NEW.subject_id, NEW.action, NEW."timestamp", NEW.email, NEW.ip_address,
        NEW.user_agent, NEW.reason, NEW.session_id, NEW.evidence
    )));
    RETURN NEW;
END
$$;
CREATE TRIGGER trail_link BEFORE INSERT ON consent_audit_log
    FOR EACH ROW EXECUTE FUNCTION trail_link();
ALTER TABLE consent_audit_log ENABLE ALWAYS TRIGGER trail_link;

CREATE FUNCTION trail_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only: % refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER trail_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON consent_audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION trail_refuse();
ALTER TABLE consent_audit_log ENABLE ALWAYS TRIGGER trail_refuse;

-- The owner, too, can change nothing, and delete only what is a year old; retention does so by the
-- function, to which a setting gives the days.
CREATE TABLE admin_action (
    id uuid NOT NULL,
    phase text NOT NULL CONSTRAINT admin_action_phase_known CHECK (phase IN ('intended', 'done')),
    at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    key_id text NOT NULL,
    operator text,
    method text NOT NULL,
    route text NOT NULL,
    details jsonb NOT NULL,
    subject_hash bytea,
    client_address text NOT NULL,
    request_id text NOT NULL,
    status integer,
    PRIMARY KEY (id, phase),
    CONSTRAINT admin_action_done_has_status CHECK ((phase = 'done') = (status IS NOT NULL))
);
CREATE INDEX admin_action_recorded_at ON admin_action (recorded_at);
CREATE INDEX admin_action_subject ON admin_action (subject_hash) WHERE subject_hash IS NOT NULL;

CREATE TRIGGER admin_action_refuse BEFORE UPDATE OR TRUNCATE ON admin_action
    FOR EACH STATEMENT EXECUTE FUNCTION trail_refuse();
CREATE TRIGGER admin_action_keep BEFORE DELETE ON admin_action
    FOR EACH ROW WHEN (OLD.recorded_at > now() - interval '1 year')
    EXECUTE FUNCTION trail_refuse();
ALTER TABLE admin_action ENABLE ALWAYS TRIGGER admin_action_refuse;
ALTER TABLE admin_action ENABLE ALWAYS TRIGGER admin_action_keep;

CREATE FUNCTION admin_action_purge(days integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = consent, pg_temp AS $$
    WITH gone AS (
        DELETE FROM admin_action WHERE recorded_at < now() - make_interval(days => days)
        RETURNING 1
    ) SELECT count(*) FROM gone
$$;

REVOKE ALL ON consent_audit_log, trail_head, trail_origin, admin_action FROM consent;
GRANT SELECT, INSERT ON consent_audit_log, admin_action TO consent;
GRANT SELECT, INSERT, DELETE ON trail_origin TO consent;
REVOKE DELETE ON data_subject, consent_state FROM consent;
REVOKE UPDATE ON erasure_receipt FROM consent;
REVOKE ALL ON FUNCTION admin_action_purge FROM PUBLIC;
GRANT EXECUTE ON FUNCTION admin_action_purge TO consent;

\ir ../../../../libs/common/messaging/outbox_table.sql

\ir ../../../../libs/common/messaging/inbox_table.sql
