"""The head of the trail is its last row; erasure's order until every service has carried it out."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The one row of trail_head is left as the lock that whoever appends holds until the commit. It is
# never updated: while a backup kept dead versions of it, each append would have read them all.
TRAIL = """
CREATE OR REPLACE FUNCTION trail_link() RETURNS trigger
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
        NEW.id, NEW.person_id, NEW.action, NEW."timestamp", NEW.email, NEW.ip_address,
        NEW.user_agent, NEW.reason, NEW.session_id, NEW.evidence
    )));
    RETURN NEW;
END
$$;
ALTER TABLE trail_head DROP COLUMN id, DROP COLUMN hash;
REVOKE ALL ON trail_head FROM consent;
"""


def upgrade() -> None:
    op.execute(TRAIL)


def downgrade() -> None:
    raise NotImplementedError("the trail cannot be taken back; restore a backup instead")
