-- Generated from the migrations by `make schema`; a test compares the two.

CREATE FUNCTION admin_action_purge(days integer) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'consent', 'pg_temp'
    AS $$
    WITH gone AS (
        DELETE FROM admin_action WHERE recorded_at < now() - make_interval(days => days)
        RETURNING 1
    ) SELECT count(*) FROM gone
$$;
CREATE FUNCTION outbox_notify() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '_outbox', '');
    RETURN NULL;
END
$$;
CREATE FUNCTION trail_link() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'consent', 'pg_temp'
    AS $$
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
CREATE FUNCTION trail_refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only: % refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE FUNCTION withdrawal_of_all() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'consent', 'pg_temp'
    AS $$
BEGIN
    INSERT INTO consent_state AS mine (subject_id, purpose, state, changed_at, withdrawn_at)
    VALUES (NEW.subject_id, '*', 'withdrawn', NEW.changed_at, NEW.withdrawn_at)
    ON CONFLICT (subject_id, purpose) DO UPDATE
    SET withdrawn_at = greatest(mine.withdrawn_at, excluded.withdrawn_at);
    UPDATE consent_state
    SET state = 'withdrawn', version = version + 1, changed_at = clock_timestamp(),
        withdrawn_at = NEW.withdrawn_at
    WHERE subject_id = NEW.subject_id AND state = 'granted' AND purpose <> 'marketing'
        AND changed_at <= NEW.withdrawn_at;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION admin_action_purge(days integer) FROM PUBLIC;
GRANT ALL ON FUNCTION admin_action_purge(days integer) TO consent;

CREATE TABLE admin_action (
    id uuid NOT NULL,
    phase text NOT NULL,
    at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    key_id text NOT NULL,
    operator text,
    method text NOT NULL,
    route text NOT NULL,
    details jsonb NOT NULL,
    subject_hash bytea,
    client_address text NOT NULL,
    request_id text NOT NULL,
    status integer,
    CONSTRAINT admin_action_done_has_status CHECK (((phase = 'done') = (status IS NOT NULL))),
    CONSTRAINT admin_action_phase_known CHECK ((phase = ANY (ARRAY['intended', 'done']))),
    CONSTRAINT admin_action_pkey PRIMARY KEY (id, phase)
);
CREATE INDEX admin_action_recorded_at ON admin_action (recorded_at);
CREATE INDEX admin_action_subject ON admin_action (subject_hash) WHERE (subject_hash IS NOT NULL);
CREATE TRIGGER admin_action_keep BEFORE DELETE ON admin_action FOR EACH ROW WHEN ((old.recorded_at > (now() - '1 year'::interval))) EXECUTE FUNCTION trail_refuse();
ALTER TABLE admin_action ENABLE ALWAYS TRIGGER admin_action_keep;
CREATE TRIGGER admin_action_refuse BEFORE UPDATE OR TRUNCATE ON admin_action FOR EACH STATEMENT EXECUTE FUNCTION trail_refuse();
ALTER TABLE admin_action ENABLE ALWAYS TRIGGER admin_action_refuse;
GRANT SELECT,INSERT ON TABLE admin_action TO consent;

CREATE TABLE consent_audit_log (
    id bigint NOT NULL,
    subject_id uuid NOT NULL,
    action text NOT NULL,
    "timestamp" timestamptz NOT NULL,
    email bytea NOT NULL,
    ip_address bytea,
    user_agent bytea,
    reason bytea,
    session_id bytea,
    evidence bytea,
    hash bytea NOT NULL,
    CONSTRAINT consent_audit_log_action_known CHECK ((action = ANY (ARRAY['opt-in', 'unsubscribe', 'revoke-consent', 'erasure-requested', 'erased', 'export']))),
    CONSTRAINT consent_audit_log_pkey PRIMARY KEY (id),
    CONSTRAINT consent_audit_log_subject_id_fkey FOREIGN KEY (subject_id) REFERENCES data_subject(id)
);
CREATE INDEX consent_audit_log_subject_timestamp ON consent_audit_log (subject_id, "timestamp");
CREATE INDEX consent_audit_log_timestamp ON consent_audit_log ("timestamp");
CREATE TRIGGER trail_link BEFORE INSERT ON consent_audit_log FOR EACH ROW EXECUTE FUNCTION trail_link();
ALTER TABLE consent_audit_log ENABLE ALWAYS TRIGGER trail_link;
CREATE TRIGGER trail_refuse BEFORE DELETE OR UPDATE OR TRUNCATE ON consent_audit_log FOR EACH STATEMENT EXECUTE FUNCTION trail_refuse();
ALTER TABLE consent_audit_log ENABLE ALWAYS TRIGGER trail_refuse;
GRANT SELECT,INSERT ON TABLE consent_audit_log TO consent;

CREATE TABLE consent_state (
    subject_id uuid NOT NULL,
    purpose text NOT NULL,
    state text NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    changed_at timestamptz NOT NULL,
    withdrawn_at timestamptz,
    CONSTRAINT consent_state_known CHECK ((state = ANY (ARRAY['granted', 'withdrawn']))),
    CONSTRAINT consent_state_withdrawal_dated CHECK (((state <> 'withdrawn') OR (withdrawn_at IS NOT NULL))),
    CONSTRAINT consent_state_pkey PRIMARY KEY (subject_id, purpose),
    CONSTRAINT consent_state_subject_id_fkey FOREIGN KEY (subject_id) REFERENCES data_subject(id)
);
CREATE TRIGGER withdrawal_of_all AFTER INSERT OR UPDATE ON consent_state FOR EACH ROW WHEN (((new.purpose = 'marketing') AND (new.state = 'withdrawn') AND (current_setting('consent.pairs', true) IS DISTINCT FROM 'on'))) EXECUTE FUNCTION withdrawal_of_all();
GRANT SELECT,INSERT,UPDATE ON TABLE consent_state TO consent;

CREATE TABLE data_subject (
    id uuid NOT NULL,
    lookup_hash bytea,
    master_key_id text,
    wrapped_key bytea,
    created_at timestamptz DEFAULT now() NOT NULL,
    erased_at timestamptz,
    CONSTRAINT data_subject_known_or_erased CHECK ((num_nonnulls(lookup_hash, master_key_id, wrapped_key) =
CASE
    WHEN (erased_at IS NULL) THEN 3
    ELSE 0
END)),
    CONSTRAINT data_subject_lookup_hash UNIQUE (lookup_hash),
    CONSTRAINT data_subject_pkey PRIMARY KEY (id)
);
CREATE INDEX data_subject_created ON data_subject (created_at) WHERE (erased_at IS NULL);
GRANT SELECT,INSERT,UPDATE ON TABLE data_subject TO consent;

CREATE TABLE erasure (
    id uuid NOT NULL,
    subject_id uuid,
    status text NOT NULL,
    requested_at timestamptz DEFAULT now() NOT NULL,
    confirmed_at timestamptz,
    finished_at timestamptz,
    suppression_hash bytea,
    master_key_id text,
    sealed_subject bytea,
    ordered_at timestamptz,
    CONSTRAINT erasure_dated CHECK ((((status <> 'awaiting_confirmation') = (confirmed_at IS NOT NULL)) AND ((status = 'done') = (finished_at IS NOT NULL)))),
    CONSTRAINT erasure_sealed_while_in_progress CHECK (((num_nonnulls(master_key_id, sealed_subject) = 0) OR ((num_nonnulls(master_key_id, sealed_subject, ordered_at) = 3) AND (status = 'in_progress')))),
    CONSTRAINT erasure_status_known CHECK ((status = ANY (ARRAY['awaiting_confirmation', 'in_progress', 'done']))),
    CONSTRAINT erasure_unlinked_once_confirmed CHECK (((status = 'awaiting_confirmation') = (subject_id IS NOT NULL))),
    CONSTRAINT erasure_pkey PRIMARY KEY (id),
    CONSTRAINT erasure_subject UNIQUE (subject_id),
    CONSTRAINT erasure_subject_id_fkey FOREIGN KEY (subject_id) REFERENCES data_subject(id)
);
CREATE INDEX erasure_finished ON erasure (finished_at);
CREATE INDEX erasure_in_progress ON erasure (requested_at) WHERE (status = 'in_progress');
CREATE INDEX erasure_suppression_hash ON erasure (suppression_hash, requested_at);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE erasure TO consent;

CREATE TABLE erasure_receipt (
    erasure_id uuid NOT NULL,
    service text NOT NULL,
    received_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT erasure_receipt_pkey PRIMARY KEY (erasure_id, service),
    CONSTRAINT erasure_receipt_erasure_id_fkey FOREIGN KEY (erasure_id) REFERENCES erasure(id) ON DELETE CASCADE
);
GRANT SELECT,INSERT,DELETE ON TABLE erasure_receipt TO consent;

CREATE TABLE hash_key (
    "position" integer NOT NULL,
    fingerprint text NOT NULL,
    CONSTRAINT hash_key_pkey PRIMARY KEY ("position")
);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE hash_key TO consent;

CREATE TABLE inbox (
    consumer text NOT NULL,
    message_id text NOT NULL,
    received_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT inbox_pkey PRIMARY KEY (consumer, message_id)
);
CREATE INDEX inbox_received_at ON inbox (received_at);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE inbox TO consent;

CREATE TABLE link_mail (
    suppression_hash bytea NOT NULL,
    kind text NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    count integer NOT NULL,
    CONSTRAINT link_mail_pkey PRIMARY KEY (suppression_hash, kind)
);
CREATE INDEX link_mail_last_at ON link_mail (last_at);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE link_mail TO consent;

CREATE TABLE opt_in (
    id uuid NOT NULL,
    subject_id uuid NOT NULL,
    purpose text NOT NULL,
    agreement bytea NOT NULL,
    asked_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT opt_in_pkey PRIMARY KEY (id),
    CONSTRAINT opt_in_subject_id_fkey FOREIGN KEY (subject_id) REFERENCES data_subject(id)
);
CREATE INDEX opt_in_asked_at ON opt_in (asked_at);
CREATE INDEX opt_in_subject ON opt_in (subject_id);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE opt_in TO consent;

CREATE TABLE outbox (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    message_id text NOT NULL,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    type text NOT NULL,
    body jsonb NOT NULL,
    headers jsonb NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    due_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT outbox_pkey PRIMARY KEY (id)
);
CREATE INDEX outbox_due ON outbox (due_at, id);
CREATE TRIGGER outbox_notify AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify();
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox TO consent;

CREATE TABLE permit (
    message uuid NOT NULL,
    attempt integer NOT NULL,
    subject_id uuid,
    granted_at timestamptz,
    returned_at timestamptz,
    purpose text,
    CONSTRAINT permit_granted_or_tombstone CHECK (((num_nonnulls(subject_id, granted_at) = 2) OR ((num_nonnulls(subject_id, granted_at) = 0) AND (returned_at IS NOT NULL)))),
    CONSTRAINT permit_pkey PRIMARY KEY (message, attempt),
    CONSTRAINT permit_subject_id_fkey FOREIGN KEY (subject_id) REFERENCES data_subject(id)
);
CREATE INDEX permit_age ON permit (COALESCE(granted_at, returned_at));
CREATE INDEX permit_unreturned ON permit (subject_id) WHERE (returned_at IS NULL);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE permit TO consent;

CREATE TABLE preference (
    subject_id uuid NOT NULL,
    purpose text NOT NULL,
    paused_until timestamptz,
    days integer,
    last_message uuid,
    last_at timestamptz,
    CONSTRAINT preference_pkey PRIMARY KEY (subject_id, purpose),
    CONSTRAINT preference_subject_id_fkey FOREIGN KEY (subject_id) REFERENCES data_subject(id)
);
COMMENT ON COLUMN preference.days IS 'at most one mail within them';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE preference TO consent;

CREATE TABLE restore (
    rows bigint NOT NULL,
    hash bytea NOT NULL,
    noticed_at timestamptz DEFAULT now() NOT NULL,
    replayed_at timestamptz,
    CONSTRAINT restore_pkey PRIMARY KEY (rows, hash)
);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE restore TO consent;

CREATE TABLE restriction (
    subject_id uuid NOT NULL,
    since timestamptz DEFAULT now() NOT NULL,
    kept bytea,
    CONSTRAINT restriction_pkey PRIMARY KEY (subject_id),
    CONSTRAINT restriction_subject_id_fkey FOREIGN KEY (subject_id) REFERENCES data_subject(id)
);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE restriction TO consent;

CREATE TABLE suppression (
    suppression_hash bytea NOT NULL,
    purpose text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    keep_until timestamptz NOT NULL,
    never_ask boolean DEFAULT false NOT NULL,
    CONSTRAINT suppression_pkey PRIMARY KEY (suppression_hash, purpose)
);
CREATE INDEX suppression_keep_until ON suppression (keep_until);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE suppression TO consent;

CREATE TABLE trail_head (
    single boolean DEFAULT true NOT NULL,
    CONSTRAINT trail_head_single CHECK (single),
    CONSTRAINT trail_head_pkey PRIMARY KEY (single)
);

CREATE TABLE trail_origin (
    hash bytea GENERATED ALWAYS AS (sha256(sealed)) STORED NOT NULL,
    sealed bytea NOT NULL,
    written_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT trail_origin_pkey PRIMARY KEY (hash)
);
CREATE INDEX trail_origin_written_at ON trail_origin (written_at);
GRANT SELECT,INSERT,DELETE ON TABLE trail_origin TO consent;

CREATE TABLE undeliverable (
    subject_id uuid NOT NULL,
    since timestamptz NOT NULL,
    takes_mail boolean NOT NULL,
    CONSTRAINT undeliverable_pkey PRIMARY KEY (subject_id),
    CONSTRAINT undeliverable_subject_id_fkey FOREIGN KEY (subject_id) REFERENCES data_subject(id) ON DELETE CASCADE
);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE undeliverable TO consent;
