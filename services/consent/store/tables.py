"""The tables of consent; the migrations have their constraints and rights."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.messaging import inbox, outbox

metadata = sa.MetaData()
_timestamptz = sa.DateTime(timezone=True)


data_subject = sa.Table(
    "data_subject",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("lookup_hash", sa.LargeBinary),
    sa.Column("master_key_id", sa.Text),
    sa.Column("wrapped_key", sa.LargeBinary),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("erased_at", _timestamptz),
    sa.UniqueConstraint("lookup_hash", name="data_subject_lookup_hash"),
    sa.Index("data_subject_created", "created_at", postgresql_where=sa.text("erased_at IS NULL")),
)

consent_state = sa.Table(
    "consent_state",
    metadata,
    sa.Column("subject_id", sa.ForeignKey(data_subject.c.id), primary_key=True),
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("changed_at", _timestamptz, nullable=False),
    sa.Column("withdrawn_at", _timestamptz),
)

permit = sa.Table(
    "permit",
    metadata,
    sa.Column("message", sa.Uuid, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("subject_id", sa.ForeignKey(data_subject.c.id)),
    sa.Column("granted_at", _timestamptz),
    sa.Column("returned_at", _timestamptz),
    sa.Index("permit_unreturned", "subject_id", postgresql_where=sa.text("returned_at IS NULL")),
    sa.Index("permit_age", sa.text("coalesce(granted_at, returned_at)")),
)

suppression = sa.Table(
    "suppression",
    metadata,
    sa.Column("suppression_hash", sa.LargeBinary, primary_key=True),
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("keep_until", _timestamptz, nullable=False),
    sa.Column("never_ask", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("suppression_keep_until", "keep_until"),
)

erasure = sa.Table(
    "erasure",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("subject_id", sa.ForeignKey(data_subject.c.id)),
    sa.Column("suppression_hash", sa.LargeBinary),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("requested_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("confirmed_at", _timestamptz),
    sa.Column("finished_at", _timestamptz),
    sa.Column("master_key_id", sa.Text),
    sa.Column("sealed_subject", sa.LargeBinary),
    sa.Column("ordered_at", _timestamptz),
    sa.UniqueConstraint("subject_id", name="erasure_subject"),
    sa.Index("erasure_suppression_hash", "suppression_hash", "requested_at"),
    sa.Index("erasure_finished", "finished_at"),
    sa.Index(
        "erasure_in_progress", "requested_at", postgresql_where=sa.text("status = 'in_progress'")
    ),
)

erasure_receipt = sa.Table(
    "erasure_receipt",
    metadata,
    sa.Column("erasure_id", sa.ForeignKey(erasure.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("received_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
)

# A position of the trail that a host has recorded and that a restored database lacks.
restore = sa.Table(
    "restore",
    metadata,
    sa.Column("rows", sa.BigInteger, primary_key=True),
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    sa.Column("noticed_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("replayed_at", _timestamptz),
)

# An agreement that waits for its confirmation by the mailed link; sealed with the subject's key.
opt_in = sa.Table(
    "opt_in",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("subject_id", sa.ForeignKey(data_subject.c.id), nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("agreement", sa.LargeBinary, nullable=False),
    sa.Column("asked_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Index("opt_in_subject", "subject_id"),
    sa.Index("opt_in_asked_at", "asked_at"),
)

# While it lasts nothing is sent or erased; `kept` is an export of all services, sealed as above.
restriction = sa.Table(
    "restriction",
    metadata,
    sa.Column("subject_id", sa.ForeignKey(data_subject.c.id), primary_key=True),
    sa.Column("since", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("kept", sa.LargeBinary),
)

link_mail = sa.Table(
    "link_mail",
    metadata,
    sa.Column("suppression_hash", sa.LargeBinary, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("first_at", _timestamptz, nullable=False),
    sa.Column("last_at", _timestamptz, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Index("link_mail_last_at", "last_at"),
)

# Append-only; its trigger sets id, timestamp and hash (migration 0001).
consent_audit_log = sa.Table(
    "consent_audit_log",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, server_default=sa.FetchedValue()),
    sa.Column("subject_id", sa.ForeignKey(data_subject.c.id), nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("timestamp", _timestamptz, nullable=False, server_default=sa.FetchedValue()),
    sa.Column("email", sa.LargeBinary, nullable=False),
    sa.Column("ip_address", sa.LargeBinary),
    sa.Column("user_agent", sa.LargeBinary),
    sa.Column("reason", sa.LargeBinary),
    sa.Column("session_id", sa.LargeBinary),
    sa.Column("evidence", sa.LargeBinary),
    sa.Column("hash", sa.LargeBinary, nullable=False, server_default=sa.FetchedValue()),
    sa.Index("consent_audit_log_subject_timestamp", "subject_id", "timestamp"),
    sa.Index("consent_audit_log_timestamp", "timestamp"),
)

# The trail has only the hashes of these; sealed with the subject's key, like the trail's cells.
trail_origin = sa.Table(
    "trail_origin",
    metadata,
    sa.Column(
        "hash", sa.LargeBinary, sa.Computed("sha256(sealed)", persisted=True), primary_key=True
    ),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("written_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Index("trail_origin_written_at", "written_at"),
)

# The keys that made the stored hashes, the oldest first.
hash_key = sa.Table(
    "hash_key",
    metadata,
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
)

# The lock for appending; the runtime role cannot even read it.
trail_head = sa.Table(
    "trail_head",
    metadata,
    sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.true()),
)

# Append-only; see migration 0001.
admin_action = sa.Table(
    "admin_action",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("phase", sa.Text, primary_key=True),
    sa.Column("at", _timestamptz, nullable=False),
    sa.Column("recorded_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("operator", sa.Text),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("route", sa.Text, nullable=False),
    sa.Column("details", JSONB, nullable=False),
    sa.Column("subject_hash", sa.LargeBinary),
    sa.Column("client_address", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Index("admin_action_recorded_at", "recorded_at"),
    sa.Index(
        "admin_action_subject",
        "subject_hash",
        postgresql_where=sa.text("subject_hash IS NOT NULL"),
    ),
)

outbox.table(metadata)
inbox.table(metadata)
