"""People, their consent, permits and the audit trail."""

from alembic import op

from libs.common import inbox, outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE person (
    id uuid PRIMARY KEY,
    address_hash bytea CONSTRAINT person_address_hash UNIQUE,
    master_key_id text,
    wrapped_key bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    erased_at timestamptz,
    CONSTRAINT person_known_or_erased CHECK (
        num_nonnulls(address_hash, master_key_id, wrapped_key)
        = CASE WHEN erased_at IS NULL THEN 3 ELSE 0 END
    )
);

CREATE TABLE consent_state (
    person_id uuid NOT NULL REFERENCES person,
    purpose text NOT NULL,
    state text NOT NULL
        CONSTRAINT consent_state_known CHECK (state IN ('granted', 'withdrawn')),
    version bigint NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (person_id, purpose)
);

CREATE TABLE permit (
    message uuid NOT NULL,
    attempt integer NOT NULL,
    person_id uuid REFERENCES person,
    granted_at timestamptz,
    returned_at timestamptz,
    PRIMARY KEY (message, attempt),
    CONSTRAINT permit_granted_or_tombstone CHECK (
        num_nonnulls(person_id, granted_at) = 2
        OR (num_nonnulls(person_id, granted_at) = 0 AND returned_at IS NOT NULL)
    )
);
CREATE INDEX permit_unreturned ON permit (person_id) WHERE returned_at IS NULL;
CREATE INDEX permit_age ON permit (coalesce(granted_at, returned_at));

CREATE TABLE suppression (
    address_hash bytea NOT NULL,
    purpose text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    keep_until timestamptz NOT NULL,
    PRIMARY KEY (address_hash, purpose)
);
CREATE INDEX suppression_keep_until ON suppression (keep_until);

CREATE TABLE erasure (
    id uuid PRIMARY KEY,
    person_id uuid NOT NULL CONSTRAINT erasure_person UNIQUE REFERENCES person,
    status text NOT NULL CONSTRAINT erasure_status_known
        CHECK (status IN ('awaiting_confirmation', 'in_progress', 'done')),
    requested_at timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz,
    finished_at timestamptz,
    CONSTRAINT erasure_dated CHECK (
        (status <> 'awaiting_confirmation') = (confirmed_at IS NOT NULL)
        AND (status = 'done') = (finished_at IS NOT NULL)
    )
);
"""

TRAIL = """
CREATE TABLE consent_audit_log (
    id bigint PRIMARY KEY,
    person_id uuid NOT NULL REFERENCES person,
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
CREATE INDEX consent_audit_log_person_timestamp ON consent_audit_log (person_id, "timestamp");
CREATE INDEX consent_audit_log_timestamp ON consent_audit_log ("timestamp");

CREATE TABLE trail_head (
    single boolean PRIMARY KEY DEFAULT true CONSTRAINT trail_head_single CHECK (single),
    id bigint NOT NULL,
    hash bytea NOT NULL
);
INSERT INTO trail_head (id, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- Numbers and chains each row under the lock of the one head row, which lasts until the commit.
-- As the owner: the runtime role cannot move the head, nor choose an id, a time or a hash.
CREATE FUNCTION trail_link() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = consent, pg_temp AS $$
DECLARE
    head trail_head;
BEGIN
    SELECT * INTO STRICT head FROM trail_head FOR UPDATE;
    NEW.id := head.id + 1;
    NEW."timestamp" := clock_timestamp();
    NEW.hash := sha256(head.hash || record_send(ROW(
        NEW.id, NEW.person_id, NEW.action, NEW."timestamp", NEW.email, NEW.ip_address,
        NEW.user_agent, NEW.reason, NEW.session_id, NEW.evidence
    )));
    UPDATE trail_head SET id = NEW.id, hash = NEW.hash;
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

REVOKE ALL ON consent_audit_log, trail_head FROM consent;
GRANT SELECT, INSERT ON consent_audit_log TO consent;
GRANT SELECT ON trail_head TO consent;
REVOKE DELETE ON person, consent_state, erasure FROM consent;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(TRAIL)
    outbox.upgrade(op)
    inbox.upgrade(op)


def downgrade() -> None:
    raise NotImplementedError("the trail cannot be taken back; restore a backup instead")
