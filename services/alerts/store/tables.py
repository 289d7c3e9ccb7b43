"""The tables, as the migrations make them."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from libs.common import outbox

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
    sa.Column("created_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("operator", sa.Text),
    sa.Column("turn", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("spent", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("lease_until", _timestamptz),
    sa.Column("last_attempt_at", _timestamptz),
    sa.Column("finished_at", _timestamptz),
    sa.Column("duplicates", sa.Integer, nullable=False, server_default="0"),
    sa.Column(
        "requeued_at",
        _timestamptz,
        comment="when a person last handed it out again; its age counts from then",
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
    sa.Index("delivery_delivered", "finished_at", postgresql_where=sa.text("state = 'delivered'")),
    sa.Index(
        "dead_letter_queue_status_created",
        sa.text("dead_letter_status(state)"),
        "created_at",
        postgresql_where=sa.text(_SHOWN),
    ),
    sa.Index("dead_letter_queue_created", "created_at", postgresql_where=sa.text(_SHOWN)),
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
    comment="accepted counts every row ever written, duplicates what none was written for; "
    "the others only rows that were purged",
)

ledger_count = sa.Table(
    "ledger_count",
    metadata,
    sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("until", _timestamptz, nullable=False, server_default="-infinity"),
    sa.Column("delivered", sa.BigInteger, nullable=False, server_default="0"),
    comment="how many delivered rows are there that finished before that time",
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
    comment="alerts that were counted on the first of their dedup_key instead of sent",
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
    sa.Column("digest", sa.Uuid, comment="the alert that tells a person of it"),
    sa.Column("untold_at", _timestamptz, comment="when the mail that told of it failed last"),
    sa.Column("untold", sa.Integer, nullable=False, server_default="0", comment="how many have"),
    sa.Index(
        "escalation_untold", "target", "created_at", postgresql_where=sa.text("digest IS NULL")
    ),
    sa.Index("escalation_alert", "alert_id", "target"),
    sa.Index("escalation_digest", "digest", postgresql_where=sa.text("digest IS NOT NULL")),
)

breaker = sa.Table(
    "breaker",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("process", sa.Uuid, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("next_trial_at", _timestamptz),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column(
        "seen_at",
        _timestamptz,
        nullable=False,
        server_default=_now,
        comment="when the process last said so; one that is silent is dead",
    ),
    sa.Column("reset_at", _timestamptz),
    sa.Column("reset_by", sa.Text),
)

trouble = sa.Table(
    "trouble",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("since", _timestamptz, nullable=False, server_default=_now),
    sa.Column("number", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("told_at", _timestamptz),
    sa.Column("digest", sa.Uuid, comment="the alert that told a person of it"),
    sa.Column("untold_at", _timestamptz, comment="when the mail that told of it failed last"),
    sa.Column(
        "untold", sa.Integer, nullable=False, server_default="0", comment="how many have, in a row"
    ),
    comment="what stands; breaker: it opened, and nothing has got through since",
)

epoch = sa.Table(
    "epoch",
    metadata,
    sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("id", sa.Uuid, nullable=False),
)

outbox.table(metadata)
