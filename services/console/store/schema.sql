-- Generated from the migrations by `make schema`; a test compares the two.

CREATE FUNCTION append_only() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'the table % is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE FUNCTION outbox_notify() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '_outbox', '');
    RETURN NULL;
END
$$;
CREATE FUNCTION staff_action_purge(days integer) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'console', 'pg_temp'
    AS $$
    WITH gone AS (
        DELETE FROM staff_action WHERE at < now() - make_interval(days => days) RETURNING 1
    ) SELECT count(*) FROM gone
$$;
CREATE FUNCTION staff_erase() RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'console', 'pg_temp'
    AS $$
    WITH gone AS (
        UPDATE staff SET email = id::text, name = '#' || left(id::text, 8)
        WHERE disabled_at < now() - interval '1 year' AND email <> id::text
        RETURNING id, id::text AS number, name
    ), acts AS (
        UPDATE staff_action SET actor_name = gone.name FROM gone
        WHERE actor_kind = 'staff' AND actor_id = number
    ), made AS (
        UPDATE api_key SET created_by = 'staff:' || number || ' ' || gone.name FROM gone
        WHERE starts_with(created_by, 'staff:' || number)
    ), sessions AS (
        DELETE FROM staff_session USING gone WHERE staff_id = gone.id
    ) SELECT count(*) FROM gone
$$;
REVOKE ALL ON FUNCTION staff_action_purge(days integer) FROM PUBLIC;
GRANT ALL ON FUNCTION staff_action_purge(days integer) TO console;
REVOKE ALL ON FUNCTION staff_erase() FROM PUBLIC;
GRANT ALL ON FUNCTION staff_erase() TO console;

CREATE TABLE api_key (
    id text NOT NULL,
    name text NOT NULL,
    purpose text NOT NULL,
    owner text NOT NULL,
    scopes text[] NOT NULL,
    limits text[] NOT NULL,
    networks text[] NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    created_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    last_used_at timestamptz,
    calls bigint DEFAULT 0 NOT NULL,
    CONSTRAINT api_key_id_form CHECK ((id ~ '^[A-Z2-7]{10}$')),
    CONSTRAINT api_key_scoped CHECK ((cardinality(scopes) > 0)),
    CONSTRAINT api_key_pkey PRIMARY KEY (id)
);
GRANT SELECT,INSERT,UPDATE ON TABLE api_key TO console;

CREATE TABLE api_key_digest (
    sha256 bytea NOT NULL,
    key_id text NOT NULL,
    until timestamptz,
    added_in bigint NOT NULL,
    CONSTRAINT api_key_digest_length CHECK ((octet_length(sha256) = 32)),
    CONSTRAINT api_key_digest_pkey PRIMARY KEY (sha256),
    CONSTRAINT api_key_digest_key_id_fkey FOREIGN KEY (key_id) REFERENCES api_key(id)
);
CREATE INDEX api_key_digest_key ON api_key_digest (key_id);
GRANT SELECT,INSERT,UPDATE ON TABLE api_key_digest TO console;

CREATE TABLE bulk_action (
    id uuid NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    staff_id uuid NOT NULL,
    verb text NOT NULL,
    filter jsonb NOT NULL,
    reason text NOT NULL,
    expected integer NOT NULL,
    done integer DEFAULT 0 NOT NULL,
    state text DEFAULT 'running' NOT NULL,
    lease_until timestamptz,
    ended_at timestamptz,
    CONSTRAINT bulk_action_ended CHECK (((state = 'running') = (ended_at IS NULL))),
    CONSTRAINT bulk_action_state_known CHECK ((state = ANY (ARRAY['running', 'done', 'stopped', 'refused']))),
    CONSTRAINT bulk_action_verb_known CHECK ((verb = ANY (ARRAY['retry', 'discard']))),
    CONSTRAINT bulk_action_pkey PRIMARY KEY (id),
    CONSTRAINT bulk_action_staff_id_fkey FOREIGN KEY (staff_id) REFERENCES staff(id)
);
CREATE INDEX bulk_action_running ON bulk_action (at) WHERE (state = 'running');
GRANT SELECT,INSERT,UPDATE ON TABLE bulk_action TO console;

CREATE TABLE invitation (
    token_sha256 bytea NOT NULL,
    staff_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    CONSTRAINT invitation_pkey PRIMARY KEY (token_sha256),
    CONSTRAINT invitation_staff_id_fkey FOREIGN KEY (staff_id) REFERENCES staff(id)
);
CREATE INDEX invitation_staff ON invitation (staff_id);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE invitation TO console;

CREATE TABLE key_reader (
    process text NOT NULL,
    instance text NOT NULL,
    version bigint NOT NULL,
    seen_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT key_reader_pkey PRIMARY KEY (process, instance)
);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE key_reader TO console;

CREATE TABLE key_restore (
    epoch text NOT NULL,
    version bigint NOT NULL,
    held bytea[],
    noticed_at timestamptz DEFAULT now() NOT NULL,
    accepted_at timestamptz,
    people jsonb,
    CONSTRAINT key_restore_pkey PRIMARY KEY (epoch, version)
);
GRANT SELECT,INSERT,UPDATE ON TABLE key_restore TO console;

CREATE TABLE key_version (
    epoch text NOT NULL,
    version bigint NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT key_version_pkey PRIMARY KEY (epoch, version)
);
CREATE INDEX key_version_version ON key_version (version);
GRANT SELECT,INSERT ON TABLE key_version TO console;

CREATE TABLE login_failure (
    email_sha256 bytea NOT NULL,
    failures integer NOT NULL,
    last_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT login_failure_pkey PRIMARY KEY (email_sha256)
);
CREATE INDEX login_failure_last_at ON login_failure (last_at);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE login_failure TO console;

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
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox TO console;

CREATE TABLE sample (
    at timestamptz NOT NULL,
    target text NOT NULL,
    pending bigint NOT NULL,
    delivered bigint NOT NULL,
    failed bigint NOT NULL,
    CONSTRAINT sample_pkey PRIMARY KEY (at, target)
);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE sample TO console;

CREATE TABLE staff (
    id uuid NOT NULL,
    email text NOT NULL,
    name text NOT NULL,
    roles text[] NOT NULL,
    language text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    disabled_at timestamptz,
    proof_at timestamptz,
    factor bytea,
    factor_step bigint,
    recovery bytea[],
    CONSTRAINT staff_language_known CHECK ((language = ANY (ARRAY['pl', 'en']))),
    CONSTRAINT staff_roles_known CHECK ((roles <@ ARRAY['viewer', 'sales', 'ops', 'privacy', 'admin'])),
    CONSTRAINT staff_email UNIQUE (email),
    CONSTRAINT staff_pkey PRIMARY KEY (id)
);
GRANT SELECT,INSERT,UPDATE ON TABLE staff TO console;

CREATE TABLE staff_action (
    id uuid NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    actor_kind text NOT NULL,
    actor_id text NOT NULL,
    actor_name text,
    roles text[] DEFAULT '{}'::text[] NOT NULL,
    action text NOT NULL,
    object_kind text NOT NULL,
    object_ref text NOT NULL,
    reason text,
    request_id text NOT NULL,
    outcome text NOT NULL,
    count bigint,
    client_address text,
    CONSTRAINT staff_action_actor_known CHECK ((actor_kind = ANY (ARRAY['staff', 'key', 'env']))),
    CONSTRAINT staff_action_pkey PRIMARY KEY (id)
);
CREATE INDEX staff_action_action ON staff_action (action, at);
CREATE INDEX staff_action_actor ON staff_action (actor_kind, actor_id, at);
CREATE INDEX staff_action_at ON staff_action (at);
CREATE TRIGGER staff_action_as_it_was BEFORE UPDATE ON staff_action FOR EACH ROW WHEN (((old.at > (now() - '1 year'::interval)) OR (old.actor_kind <> 'staff') OR (new.actor_name IS DISTINCT FROM ('#' || "left"(old.actor_id, 8))) OR ((to_jsonb(new.*) - 'actor_name') IS DISTINCT FROM (to_jsonb(old.*) - 'actor_name')))) EXECUTE FUNCTION append_only();
ALTER TABLE staff_action ENABLE ALWAYS TRIGGER staff_action_as_it_was;
CREATE TRIGGER staff_action_keep BEFORE DELETE ON staff_action FOR EACH ROW WHEN ((old.at > (now() - '1 year'::interval))) EXECUTE FUNCTION append_only();
ALTER TABLE staff_action ENABLE ALWAYS TRIGGER staff_action_keep;
CREATE TRIGGER staff_action_refuse BEFORE TRUNCATE ON staff_action FOR EACH STATEMENT EXECUTE FUNCTION append_only();
ALTER TABLE staff_action ENABLE ALWAYS TRIGGER staff_action_refuse;
GRANT SELECT,INSERT ON TABLE staff_action TO console;

CREATE TABLE staff_credential (
    staff_id uuid NOT NULL,
    kind text NOT NULL,
    hash text,
    issuer text,
    subject text,
    CONSTRAINT staff_credential_kind_known CHECK (
CASE kind
    WHEN 'password' THEN ((hash IS NOT NULL) AND (issuer IS NULL) AND (subject IS NULL))
    WHEN 'oidc' THEN ((hash IS NULL) AND (issuer IS NOT NULL) AND (subject IS NOT NULL))
    ELSE false
END),
    CONSTRAINT staff_credential_pkey PRIMARY KEY (staff_id, kind),
    CONSTRAINT staff_credential_staff_id_fkey FOREIGN KEY (staff_id) REFERENCES staff(id)
);
CREATE UNIQUE INDEX staff_credential_identity ON staff_credential (issuer, subject);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE staff_credential TO console;

CREATE TABLE staff_session (
    token_sha256 bytea NOT NULL,
    staff_id uuid NOT NULL,
    browser text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    seen_at timestamptz DEFAULT now() NOT NULL,
    stepped_up_at timestamptz DEFAULT now() NOT NULL,
    ended_at timestamptz,
    CONSTRAINT staff_session_pkey PRIMARY KEY (token_sha256),
    CONSTRAINT staff_session_staff_id_fkey FOREIGN KEY (staff_id) REFERENCES staff(id)
);
CREATE INDEX staff_session_seen ON staff_session (seen_at);
CREATE INDEX staff_session_staff ON staff_session (staff_id);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE staff_session TO console;
