"""The tables of cases, as the migration creates them; a test compares the two."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from services.alerts.store.tables import metadata

_timestamptz = sa.DateTime(timezone=True)
_now = sa.text("now()")


def _case() -> sa.Column[object]:
    return sa.Column(
        "case_id", sa.Uuid, sa.ForeignKey("alert_case.alert_id", ondelete="CASCADE"), nullable=False
    )


def _count(name: str, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0", comment=comment)


def _texts(*names: str, nullable: bool = False) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.Text, nullable=nullable) for name in names]


alert_case = sa.Table(
    "alert_case",
    metadata,
    sa.Column("alert_id", sa.Uuid, primary_key=True),
    *_texts("event_type", "severity", "source"),
    *_texts("dedup_key", "request_id", nullable=True),
    sa.Column("payload", JSONB(none_as_null=True)),
    sa.Column("subjects", sa.ARRAY(sa.LargeBinary), nullable=False, server_default="{}"),
    sa.Column("accepted_at", _timestamptz, nullable=False),
    sa.Column(
        "chain", JSONB, nullable=False, comment="a copy of the policy's chain, with its repeats"
    ),
    *_texts("hours"),
    sa.Column("state", sa.Text, nullable=False, server_default="open"),
    *_texts("reason", "outcome", "owner", "owner_name", nullable=True),
    sa.Column("late", sa.Boolean, nullable=False, server_default=sa.false()),
    _count("generation", "a fencing token: it grows when the chain begins anew"),
    _count("step", "how many steps of this generation were handed out"),
    _count("version"),
    sa.Column("next_at", _timestamptz, comment="when the timer acts"),
    sa.Column(
        "reminded",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="its owner, who gave no outcome in time",
    ),
    _count("laters"),
    sa.Column("silence", sa.BigInteger, comment="which has put it off"),
    sa.Column("opened_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("answered_at", _timestamptz),
    sa.Column("ended_at", _timestamptz, comment="when it last stopped to be open"),
    *_texts("caller", nullable=True),
    _count("failures", "of its timer, one after another"),
    sa.Index("alert_case_due", "next_at", postgresql_where=sa.text("next_at IS NOT NULL")),
    sa.Index("alert_case_state", "state", "opened_at"),
    sa.Index("alert_case_silence", "silence", postgresql_where=sa.text("silence IS NOT NULL")),
    sa.Index("alert_case_dedup", "dedup_key", postgresql_where=sa.text("dedup_key IS NOT NULL")),
    sa.Index(
        "alert_case_subjects",
        "subjects",
        postgresql_using="gin",
        postgresql_where=sa.text("subjects <> '{}'"),
    ),
)

case_step = sa.Table(
    "case_step",
    metadata,
    sa.Column(
        "case_id",
        sa.Uuid,
        sa.ForeignKey("alert_case.alert_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("alert_id", sa.Uuid, nullable=False),
    *_texts("target"),
    *_texts("person", nullable=True),
    sa.Column("handed_out_at", _timestamptz, nullable=False, server_default=_now),
    sa.UniqueConstraint("alert_id", name="case_step_alert"),
)

case_answer = sa.Table(
    "case_answer",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _case(),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("at", _timestamptz, nullable=False, server_default=_now),
    *_texts("person", "name", "via", "verb"),
    *_texts("reason", nullable=True),
    sa.Column("until", _timestamptz),
    *_texts("key"),
    sa.Column("result", JSONB, nullable=False),
    sa.UniqueConstraint("case_id", "key", name="case_answer_key"),
)

case_place = sa.Table(
    "case_place",
    metadata,
    sa.Column("alert_id", sa.Uuid, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    _case(),
    sa.Column("receipt", JSONB(none_as_null=True)),
    _count("want", "grows with each change that it has to show"),
    sa.Column("wanted_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("shown", sa.Integer, comment="the value of want that it shows; NULL: not shown yet"),
    _count("ordered", "the value of want for which the last update was ordered"),
    sa.Column("update_id", sa.Uuid),
    sa.Index("case_place_case", "case_id"),
    sa.Index(
        "case_place_due",
        "wanted_at",
        postgresql_where=sa.text("want > coalesce(shown, 0) AND want > ordered"),
    ),
    comment="where an alert or a step was shown",
)

case_link = sa.Table(
    "case_link",
    metadata,
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    _case(),
    *_texts("person"),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("expires_at", _timestamptz, nullable=False),
    sa.Index("case_link_case", "case_id"),
    sa.Index("case_link_expires", "expires_at"),
)

case_total = sa.Table(
    "case_total",
    metadata,
    sa.Column("term", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False, server_default="0"),
    comment="opened counts every case, the others purged ones only",
)

oncall_override = sa.Table(
    "oncall_override",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    *_texts("schedule"),
    sa.Column("begins", _timestamptz, nullable=False),
    sa.Column("ends", _timestamptz, nullable=False),
    *_texts("person", "by"),
    *_texts("why", nullable=True),
    sa.CheckConstraint("begins < ends", name="oncall_override_ends_after_it_begins"),
    sa.Index("oncall_override_ends", "ends"),
)

heartbeat = sa.Table(
    "heartbeat",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("next_at", _timestamptz, nullable=False, comment="when it is missed"),
    sa.Column("case_id", sa.Uuid, comment="the case that asks why it was missed"),
    comment="event types that are to come in time",
)

silence = sa.Table(
    "silence",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    *_texts("event_type"),
    *_texts("severity", "source", "dedup_key", nullable=True),
    sa.Column("begins", _timestamptz, nullable=False, server_default=_now),
    sa.Column("ends", _timestamptz, nullable=False),
    *_texts("by", "why"),
    sa.Index("silence_ends", "ends"),
    comment="alerts with these values wait; NULL matches any",
)
