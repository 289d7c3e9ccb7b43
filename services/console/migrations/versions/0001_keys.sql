-- The record of acts, and API keys with their versions and readers.
-- Nobody changes a row, and the owner, too, deletes only what is a year old; retention does so by
-- the function, to which a setting gives the days.
CREATE TABLE staff_action (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor_kind text NOT NULL
        CONSTRAINT staff_action_actor_known CHECK (actor_kind IN ('staff', 'key', 'env')),
    actor_id text NOT NULL,
    actor_name text,
    roles text[] NOT NULL DEFAULT '{}',
    action text NOT NULL,
    object_kind text NOT NULL,
    object_ref text NOT NULL,
    reason text,
    request_id text NOT NULL,
    outcome text NOT NULL
);
CREATE INDEX staff_action_at ON staff_action (at);
CREATE INDEX staff_action_actor ON staff_action (actor_kind, actor_id, at);
CREATE INDEX staff_action_action ON staff_action (action, at);

CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the table % is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER staff_action_refuse BEFORE UPDATE OR TRUNCATE ON staff_action
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER staff_action_keep BEFORE DELETE ON staff_action
    FOR EACH ROW WHEN (OLD.at > now() - interval '1 year') EXECUTE FUNCTION append_only();
ALTER TABLE staff_action ENABLE ALWAYS TRIGGER staff_action_refuse;
ALTER TABLE staff_action ENABLE ALWAYS TRIGGER staff_action_keep;

CREATE FUNCTION staff_action_purge(days integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = console, pg_temp AS $$
    WITH gone AS (
        DELETE FROM staff_action WHERE at < now() - make_interval(days => days) RETURNING 1
    ) SELECT count(*) FROM gone
$$;

CREATE TABLE api_key (
    id text PRIMARY KEY CONSTRAINT api_key_id_form CHECK (id ~ '^[A-Z2-7]{10}$'),
    name text NOT NULL,
    purpose text NOT NULL,
    owner text NOT NULL,
    scopes text[] NOT NULL CONSTRAINT api_key_scoped CHECK (cardinality(scopes) > 0),
    limits text[] NOT NULL,
    networks text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    last_used_at timestamptz,
    calls bigint NOT NULL DEFAULT 0
);
CREATE TABLE api_key_digest (
    sha256 bytea PRIMARY KEY
        CONSTRAINT api_key_digest_length CHECK (octet_length(sha256) = 32),
    key_id text NOT NULL REFERENCES api_key,
    until timestamptz,
    added_in bigint NOT NULL
);
CREATE INDEX api_key_digest_key ON api_key_digest (key_id);

CREATE TABLE key_version (
    epoch text NOT NULL,
    version bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (epoch, version)
);
CREATE INDEX key_version_version ON key_version (version);
INSERT INTO key_version (epoch, version)
    VALUES (
        to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS"Z-"')
            || left(md5(gen_random_uuid()::text), 8),
        floor(extract(epoch FROM clock_timestamp()) * 1000)
    );

CREATE TABLE key_reader (
    process text NOT NULL,
    instance text NOT NULL,
    version bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (process, instance)
);
CREATE TABLE key_restore (
    epoch text NOT NULL,
    version bigint NOT NULL,
    held bytea[],
    noticed_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz,
    PRIMARY KEY (epoch, version)
);

-- A key is never deleted: the record names it. No digest, and no version, is ever forgotten.
REVOKE ALL ON staff_action, key_version FROM console;
GRANT SELECT, INSERT ON staff_action, key_version TO console;
REVOKE DELETE ON api_key, api_key_digest, key_restore FROM console;
REVOKE ALL ON FUNCTION staff_action_purge FROM PUBLIC;
GRANT EXECUTE ON FUNCTION staff_action_purge TO console;
