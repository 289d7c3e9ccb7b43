"""The tables of consent."""

from collections.abc import Iterable

import sqlalchemy as sa

from libs.common import inbox, outbox
from services.consent.consent import Action, ErasureStatus, LinkMail, State

metadata = sa.MetaData()
_timestamptz = sa.DateTime(timezone=True)


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


person = sa.Table(
    "person",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("address_hash", sa.LargeBinary),
    sa.Column("master_key_id", sa.Text),
    sa.Column("wrapped_key", sa.LargeBinary),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("erased_at", _timestamptz),
    sa.UniqueConstraint("address_hash", name="person_address_hash"),
    sa.CheckConstraint(
        "num_nonnulls(address_hash, master_key_id, wrapped_key)"
        " = CASE WHEN erased_at IS NULL THEN 3 ELSE 0 END",
        name="person_known_or_erased",
    ),
)

consent_state = sa.Table(
    "consent_state",
    metadata,
    sa.Column("person_id", sa.ForeignKey(person.c.id), primary_key=True),
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("changed_at", _timestamptz, nullable=False),
    sa.CheckConstraint(_one_of("state", State), name="consent_state_known"),
)

permit = sa.Table(
    "permit",
    metadata,
    sa.Column("message", sa.Uuid, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("person_id", sa.ForeignKey(person.c.id)),
    sa.Column("granted_at", _timestamptz),
    sa.Column("returned_at", _timestamptz),
    sa.CheckConstraint(
        "num_nonnulls(person_id, granted_at) = 2"
        " OR (num_nonnulls(person_id, granted_at) = 0 AND returned_at IS NOT NULL)",
        name="permit_granted_or_tombstone",
    ),
    sa.Index("permit_unreturned", "person_id", postgresql_where=sa.text("returned_at IS NULL")),
    sa.Index("permit_age", sa.text("coalesce(granted_at, returned_at)")),
)

suppression = sa.Table(
    "suppression",
    metadata,
    sa.Column("address_hash", sa.LargeBinary, primary_key=True),
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("keep_until", _timestamptz, nullable=False),
    sa.Index("suppression_keep_until", "keep_until"),
)

erasure = sa.Table(
    "erasure",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("person_id", sa.ForeignKey(person.c.id)),
    sa.Column("address_hash", sa.LargeBinary),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("requested_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("confirmed_at", _timestamptz),
    sa.Column("finished_at", _timestamptz),
    sa.Column("master_key_id", sa.Text),
    sa.Column("sealed_address", sa.LargeBinary),
    sa.Column("ordered_at", _timestamptz),
    sa.UniqueConstraint("person_id", name="erasure_person"),
    sa.CheckConstraint(_one_of("status", ErasureStatus), name="erasure_status_known"),
    sa.CheckConstraint(
        "(status <> 'awaiting_confirmation') = (confirmed_at IS NOT NULL)"
        " AND (status = 'done') = (finished_at IS NOT NULL)",
        name="erasure_dated",
    ),
    sa.CheckConstraint(
        "(status = 'awaiting_confirmation') = (person_id IS NOT NULL)",
        name="erasure_unlinked_once_confirmed",
    ),
    sa.Index("erasure_address", "address_hash", "requested_at"),
    sa.CheckConstraint(
        "num_nonnulls(master_key_id, sealed_address) = 0"
        " OR (num_nonnulls(master_key_id, sealed_address, ordered_at) = 3"
        " AND status = 'in_progress')",
        name="erasure_sealed_while_in_progress",
    ),
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

# An agreement that counts once it is confirmed by the link that was mailed; encrypted.
opt_in = sa.Table(
    "opt_in",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("person_id", sa.ForeignKey(person.c.id), nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("agreement", sa.LargeBinary, nullable=False),
    sa.Column("asked_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Index("opt_in_person", "person_id"),
    sa.Index("opt_in_asked_at", "asked_at"),
)

link_mail = sa.Table(
    "link_mail",
    metadata,
    sa.Column("address_hash", sa.LargeBinary, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("first_at", _timestamptz, nullable=False),
    sa.Column("last_at", _timestamptz, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.CheckConstraint(_one_of("kind", LinkMail), name="link_mail_kind_known"),
    sa.Index("link_mail_last_at", "last_at"),
)

# Append-only; its trigger sets id, timestamp and hash (migration 0001, trail.py).
consent_audit_log = sa.Table(
    "consent_audit_log",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, server_default=sa.FetchedValue()),
    sa.Column("person_id", sa.ForeignKey(person.c.id), nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("timestamp", _timestamptz, nullable=False, server_default=sa.FetchedValue()),
    sa.Column("email", sa.LargeBinary, nullable=False),
    sa.Column("ip_address", sa.LargeBinary),
    sa.Column("user_agent", sa.LargeBinary),
    sa.Column("reason", sa.LargeBinary),
    sa.Column("session_id", sa.LargeBinary),
    sa.Column("evidence", sa.LargeBinary),
    sa.Column("hash", sa.LargeBinary, nullable=False, server_default=sa.FetchedValue()),
    sa.CheckConstraint(_one_of("action", Action), name="consent_audit_log_action_known"),
    sa.Index("consent_audit_log_person_timestamp", "person_id", "timestamp"),
    sa.Index("consent_audit_log_timestamp", "timestamp"),
)

# The lock of whoever appends; the runtime role cannot even read it.
trail_head = sa.Table(
    "trail_head",
    metadata,
    sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.CheckConstraint("single", name="trail_head_single"),
)

outbox.table(metadata)
inbox.table(metadata)
