-- People, their invitations, passwords and sessions.
CREATE TABLE staff (
    id uuid PRIMARY KEY,
    email text NOT NULL CONSTRAINT staff_email UNIQUE,
    name text NOT NULL,
    roles text[] NOT NULL CONSTRAINT staff_roles_known
        CHECK (roles <@ ARRAY['viewer', 'sales', 'ops', 'privacy', 'admin']),
    language text NOT NULL CONSTRAINT staff_language_known CHECK (language IN ('pl', 'en')),
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
CREATE TABLE staff_credential (
    staff_id uuid NOT NULL REFERENCES staff,
    kind text NOT NULL CONSTRAINT staff_credential_kind_known CHECK (kind = 'password'),
    hash text NOT NULL,
    PRIMARY KEY (staff_id, kind)
);
CREATE TABLE invitation (
    token_sha256 bytea PRIMARY KEY,
    staff_id uuid NOT NULL REFERENCES staff,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX invitation_staff ON invitation (staff_id);

CREATE TABLE staff_session (
    token_sha256 bytea PRIMARY KEY,
    staff_id uuid NOT NULL REFERENCES staff,
    browser text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    stepped_up_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE INDEX staff_session_staff ON staff_session (staff_id);
CREATE INDEX staff_session_seen ON staff_session (seen_at);

-- By the hash of what was typed: also for accounts that do not exist.
CREATE TABLE login_failure (
    email_sha256 bytea PRIMARY KEY,
    failures integer NOT NULL,
    last_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX login_failure_last_at ON login_failure (last_at);

-- The record names people: nobody is deleted.
REVOKE DELETE ON staff, staff_credential FROM console;
