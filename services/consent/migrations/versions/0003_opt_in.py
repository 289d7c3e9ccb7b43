"""Agreements that wait for a mailed confirmation; how often an address is mailed a link."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# What was agreed to lies under the person's own key: erasing the person erases it.
OPT_IN = """
CREATE TABLE opt_in (
    id uuid PRIMARY KEY,
    person_id uuid NOT NULL REFERENCES person,
    purpose text NOT NULL,
    agreement bytea NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX opt_in_person ON opt_in (person_id);
CREATE INDEX opt_in_asked_at ON opt_in (asked_at);

CREATE TABLE link_mail (
    address_hash bytea NOT NULL,
    kind text NOT NULL CONSTRAINT link_mail_kind_known CHECK (kind IN ('erasure', 'opt-in')),
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    count integer NOT NULL,
    PRIMARY KEY (address_hash, kind)
);
CREATE INDEX link_mail_last_at ON link_mail (last_at);
INSERT INTO link_mail (address_hash, kind, first_at, last_at, count)
SELECT address_hash, 'erasure', max(mailed_at), max(mailed_at), 1
FROM erasure WHERE num_nonnulls(address_hash, mailed_at) = 2 GROUP BY address_hash;
ALTER TABLE erasure DROP COLUMN mailed_at;
"""


def upgrade() -> None:
    op.execute(OPT_IN)


def downgrade() -> None:
    raise NotImplementedError("the trail cannot be taken back; restore a backup instead")
