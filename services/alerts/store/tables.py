"""The tables, as the migration creates them; a test compares the two."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, JSONB

from libs.common.messaging import outbox

metadata = sa.MetaData()
_timestamptz = sa.DateTime(timezone=True)
_now = sa.text("now()")

OPEN: Final = "state IN ('pending', 'claimed', 'sending')"
KEPT: Final = "state IN ('failed', 'in_doubt', 'discarded')"
_LISTED: Final = ("created_at", "alert_id", "target", "event_type")
_SHOWN = "error IS NOT NULL AND state NOT IN ('discarded', 'in_doubt')"

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("alert_id", sa.Uuid, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("payload", JSONB),
    sa.Column("dedup_key", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("accepted_at", _timestamptz, nullable=False),
    sa.Column("once_address", sa.Text),
    sa.Column("once_purpose", sa.Text),
    sa.Column("once_reference", sa.Text),
    sa.Column("once_not_after", _timestamptz, comment="the end of its sending window"),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("operator", sa.Text),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("lease_until", _timestamptz),
    sa.Column("last_attempt_at", _timestamptz),
    sa.Column("finished_at", _timestamptz),
    sa.Column("duplicates", sa.Integer, nullable=False, server_default="0"),
    sa.Column(
        "requeued_at",
        _timestamptz,
        comment="when an operator last requeued it; its age counts from then",
    ),
    sa.Column(
        "subjects",
        sa.ARRAY(sa.LargeBinary),
        nullable=False,
        server_default="{}",
        comment="keyed hashes of the data subjects it names (subjects.py)",
    ),
    sa.Column(
        "recalled",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="its case was answered while it was in flight: it is not tried again",
    ),
    sa.Column("caller", sa.Text, comment="whose dedup_key it is; NULL: anyone's of its source"),
    sa.Column("resolved", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("fired_at", _timestamptz, comment="the acceptance of its last repeat"),
    sa.Index("delivery_recalled", "lease_until", postgresql_where=sa.text("recalled")),
    sa.Index(
        "delivery_subjects",
        "subjects",
        postgresql_using="gin",
        postgresql_where=sa.text("subjects <> '{}'"),
    ),
    sa.Index("delivery_open", *_LISTED, postgresql_where=sa.text(OPEN)),
    sa.Index("delivery_kept", "state", *_LISTED, postgresql_where=sa.text(KEPT)),
    sa.Index("delivery_due", "target", "due_at", postgresql_where=sa.text(OPEN)),
    sa.Index(
        "delivery_abandoned",
        "lease_until",
        postgresql_where=sa.text("state = 'sending' AND once_address IS NOT NULL"),
    ),
    sa.Index(
        "delivery_payload",
        "finished_at",
        postgresql_where=sa.text(f"{KEPT} AND payload IS NOT NULL"),
    ),
    sa.Index(
        "delivery_dedup",
        "dedup_key",
        "target",
        "accepted_at",
        postgresql_where=sa.text("dedup_key IS NOT NULL"),
    ),
    sa.Index(
        "delivery_critical",
        "target",
        "created_at",
        postgresql_where=sa.text("state = 'pending' AND severity = 'critical'"),
    ),
    sa.Index(
        "delivery_critical_sent",
        "target",
        postgresql_where=sa.text("state = 'sending' AND severity = 'critical'"),
    ),
    sa.Index("delivery_delivered", "finished_at", postgresql_where=sa.text("state = 'delivered'")),
    sa.Index(
        "dead_letter_queue_status_created",
        sa.text("dead_letter_status(state)"),
        "created_at",
        postgresql_where=sa.text(_SHOWN),
    ),
    sa.Index("dead_letter_queue_created", "created_at", postgresql_where=sa.text(_SHOWN)),
)

erased_subject = sa.Table(
    "erased_subject",
    metadata,
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    sa.Column("erased_at", _timestamptz, nullable=False, server_default=_now),
    comment="tombstones: alerts about them that were accepted earlier are stored empty",
)

attempt = sa.Table(
    "attempt",
    metadata,
    sa.Column("alert_id", sa.Uuid, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("seconds", sa.REAL, nullable=False),
    sa.Column("excerpt", sa.Text, nullable=False),
    sa.Column("ended_at", _timestamptz, nullable=False, server_default=_now),
    sa.ForeignKeyConstraint(
        ["alert_id", "target"], ["delivery.alert_id", "delivery.target"], ondelete="CASCADE"
    ),
)

ledger_total = sa.Table(
    "ledger_total",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    *(
        sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
        for name in ("accepted", "delivered", "failed", "discarded", "duplicates")
    ),
    sa.Column(
        "purged_until",
        _timestamptz,
        comment="rows that ended by then may be purged; "
        "a younger message without its row is a fault",
    ),
    comment="accepted counts every row ever written, "
    "duplicates the alerts without a row of their own; the others count purged rows only",
)

ledger_check = sa.Table(
    "ledger_check",
    metadata,
    sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("at", _timestamptz, nullable=False, server_default="-infinity"),
    sa.Column("found", JSONB),
    comment="result of the last check, for the metrics of every replica",
)

duplicate = sa.Table(
    "duplicate",
    metadata,
    sa.Column("alert_id", sa.Uuid, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("first_id", sa.Uuid, nullable=False),
    sa.Column("request_id", sa.Text),
    sa.Column("accepted_at", _timestamptz, nullable=False),
    sa.ForeignKeyConstraint(
        ["first_id", "target"], ["delivery.alert_id", "delivery.target"], ondelete="CASCADE"
    ),
    sa.Index("duplicate_first", "first_id", "target"),
    comment="alerts counted on the first of their dedup_key instead of sent",
)

escalation = sa.Table(
    "escalation",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("alert_id", sa.Uuid, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("digest", sa.Uuid, comment="the alert whose mail reports it"),
    sa.Column("send_failed_at", _timestamptz, comment="when the last mail that reported it failed"),
    sa.Column(
        "send_failures",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="how many such mails failed",
    ),
    sa.Index(
        "escalation_unsent", "target", "created_at", postgresql_where=sa.text("digest IS NULL")
    ),
    sa.Index("escalation_alert", "alert_id", "target"),
    sa.Index("escalation_digest", "digest", postgresql_where=sa.text("digest IS NOT NULL")),
)

breaker = sa.Table(
    "breaker",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False, server_default="closed"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_trial_at", _timestamptz, comment="half open: when its process counts as dead"),
    sa.Column("trial_by", sa.Uuid),
    sa.Column("paused_until", _timestamptz),
    sa.Column("held", sa.Text, comment="what the target said when it refused us"),
    sa.Column("healed_at", _timestamptz, comment="when it accepted an alert after it refused us"),
)

replica = sa.Table(
    "replica",
    metadata,
    sa.Column("process", sa.Uuid, primary_key=True),
    sa.Column("seen_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column(
        "numbers",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="it notes them; a release that does not makes gaps",
    ),
)

intake_sender = sa.Table(
    "intake_sender",
    metadata,
    sa.Column("sender", sa.Text, primary_key=True),
    sa.Column("seen", INT8MULTIRANGE, nullable=False),
    sa.Column("at", _timestamptz, nullable=False, server_default=_now),
    sa.Column(
        "edge",
        sa.BigInteger,
        nullable=False,
        server_default="1",
        comment="above all numbers that were seen at edge_at",
    ),
    sa.Column("edge_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column(
        "missing",
        INT8MULTIRANGE,
        nullable=False,
        server_default="{}",
        comment="gaps that stayed for long, in seen as well",
    ),
    sa.Column("missed_at", _timestamptz),
    comment="which running numbers of a gateway process came to intake",
)

incident = sa.Table(
    "incident",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("since", _timestamptz, nullable=False, server_default=_now),
    sa.Column("number", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("notified_at", _timestamptz),
    sa.Column("digest", sa.Uuid, comment="the alert whose mail reported it"),
    sa.Column("send_failed_at", _timestamptz, comment="when the last mail that reported it failed"),
    sa.Column(
        "send_failures",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="how many such mails failed in a row",
    ),
    comment="open incidents; breaker: it opened, and nothing has been delivered since",
)

epoch = sa.Table(
    "epoch",
    metadata,
    sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("id", sa.Uuid, nullable=False),
)

outbox.table(metadata)
