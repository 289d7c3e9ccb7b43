"""The tables, as created by the migrations."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from libs.common.messaging import inbox, outbox
from services.followups.rules.score import LEAD_STATES
from services.followups.rules.sequence import END_REASONS, STATES

metadata = sa.MetaData()
_timestamptz = sa.DateTime(timezone=True)

chat_conversations = sa.Table(
    "chat_conversations",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("session_id", sa.Text),
    sa.Column("email", sa.Text),
    sa.Column("state", pg.JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("score", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("qualified_at", _timestamptz),
    sa.Column("followups_ended_by", sa.Text),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("updated_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.UniqueConstraint("session_id", name="chat_conversations_session"),
    sa.CheckConstraint("score BETWEEN 0 AND 100", name="chat_conversations_score"),
    sa.CheckConstraint(
        f"followups_ended_by IN ({', '.join(repr(reason) for reason in END_REASONS)})",
        name="chat_conversations_followups_ended_by",
    ),
    sa.CheckConstraint("num_nonnulls(session_id, email) > 0", name="chat_conversations_reachable"),
    sa.Index("chat_conversations_email", "email"),
    sa.Index("chat_conversations_updated", "updated_at"),
    sa.Index("chat_conversations_phone", sa.text("((state -> 'facts'::text) ->> 'phone'::text)")),
    sa.Index(
        "chat_conversations_without_chat",
        "email",
        unique=True,
        postgresql_where=sa.text("session_id IS NULL"),
    ),
)


def _conversation(*, primary_key: bool = False) -> sa.Column[Any]:
    cascade = sa.ForeignKey(chat_conversations.c.id, ondelete="CASCADE")
    return sa.Column("conversation_id", cascade, primary_key=primary_key, nullable=False)


chat_message = sa.Table(
    "chat_message",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _conversation(),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.CheckConstraint("author IN ('lead', 'bot')", name="chat_message_author"),
    sa.Index("chat_message_conversation", "conversation_id", "id"),
)

# Every address that was named in a conversation, not only the current one.
chat_email = sa.Table(
    "chat_email",
    metadata,
    sa.Column("email", sa.Text, primary_key=True),
    _conversation(primary_key=True),
    sa.Index("chat_email_conversation", "conversation_id"),
)

# The message by which an imported lead's grant was sent to consent.
imported_grant = sa.Table(
    "imported_grant",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    _conversation(),
    sa.Index("imported_grant_conversation", "conversation_id"),
)

followup_event = sa.Table(
    "followup_event",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    _conversation(),
    sa.Column("followup_number", sa.Integer, nullable=False),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("sequence", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("enrolled_by", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'scheduled'")),
    sa.Column("due_at", _timestamptz, nullable=False),
    sa.Column("handed_over_at", _timestamptz),
    sa.Column("sent_at", _timestamptz),
    sa.Column("outcome_at", _timestamptz),
    sa.Column("reason", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("message_id", sa.Uuid, comment="of its hand-over; NULL: its own id"),
    sa.Column("stopped_by", sa.Text, comment="meanwhile, should its hand-over come back"),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.UniqueConstraint("conversation_id", "followup_number", name="followup_event_number"),
    sa.CheckConstraint(
        f"status IN ({', '.join(repr(state) for state in STATES)})", name="followup_event_status"
    ),
    sa.Index("followup_event_due", "due_at", postgresql_where=sa.text("status = 'scheduled'")),
    sa.Index(
        "followup_event_unsettled",
        "status",
        "due_at",
        "id",
        postgresql_where=sa.text("status IN ('handed_over', 'in_doubt')"),
    ),
    sa.Index("followup_event_email", "email", "handed_over_at"),
)

# A lead or another request for staff. `known`: the facts; `notified`: the facts in the last event
# (NULL: none yet); `said`: the person's words since then; `due_at`: when to notify.
lead = sa.Table(
    "lead",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),
    _conversation(),
    # The conversation of the last change; a person may return in another one.
    sa.Column("heard_in", sa.Uuid, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("score", sa.Integer, nullable=False),
    sa.Column("known", pg.JSONB, nullable=False),
    sa.Column("notified", pg.JSONB(none_as_null=True)),
    sa.Column("said", pg.JSONB, nullable=False, server_default=sa.text("'[]'")),
    sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("due_at", _timestamptz),
    sa.Column("consent_at", _timestamptz, comment="of consent's last word on may_mail"),
    sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'new'")),
    sa.Column("state_reason", sa.Text),
    sa.Column("state_by", sa.Text),
    sa.Column("state_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("updated_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.UniqueConstraint("conversation_id", "topic", name="lead_conversation_topic"),
    sa.CheckConstraint(
        f"state IN ({', '.join(repr(state) for state in LEAD_STATES)})", name="lead_state"
    ),
    sa.Index("lead_due", "due_at", postgresql_where=sa.text("due_at IS NOT NULL")),
    sa.Index("lead_created", "created_at", "id"),
)

# What was sent with a form. One that looks like a robot's is kept apart, whole, in `held`.
lead_submission = sa.Table(
    "lead_submission",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("form", sa.Text, nullable=False),
    sa.Column("form_version", sa.Text, nullable=False),
    sa.Column("conversation_id", sa.ForeignKey(chat_conversations.c.id, ondelete="CASCADE")),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("email", sa.Text),
    sa.Column("phone", sa.Text),
    sa.Column("fields", pg.JSONB, nullable=False),
    sa.Column("page", sa.Text),
    sa.Column("notice_version", sa.Text),
    sa.Column(
        "consents_not_recorded",
        pg.ARRAY(sa.Text),
        nullable=False,
        server_default=sa.text("'{}'::text[]"),
    ),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("suspicion", sa.Text),
    sa.Column(
        "held",
        pg.JSONB(none_as_null=True),
        comment="lead.submit, until a person has looked at it",
    ),
    sa.Column("taken_by", sa.Text),
    sa.Column("accepted_at", _timestamptz, nullable=False),
    sa.CheckConstraint(
        "state IN ('accepted', 'suspected', 'released', 'discarded')", name="lead_submission_state"
    ),
    sa.CheckConstraint("(held IS NOT NULL) = (state = 'suspected')", name="lead_submission_held"),
    sa.CheckConstraint(
        "(conversation_id IS NOT NULL) = (state IN ('accepted', 'released'))",
        name="lead_submission_conversation",
    ),
    sa.Index("lead_submission_conversation_id", "conversation_id"),
    sa.Index("lead_submission_email", "email"),
    sa.Index("lead_submission_phone", "phone"),
    sa.Index(
        "lead_submission_apart",
        "accepted_at",
        "id",
        postgresql_where=sa.text("conversation_id IS NULL"),
    ),
)

erased_contact = sa.Table(
    "erased_contact",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("erased_at", _timestamptz, nullable=False),
    sa.Index("erased_contact_erased_at", "erased_at"),
    comment="keyed hashes, for as long as a submission may be on its way",
)

# The primary key ensures one lead per person: two sessions cannot both insert a contact.
lead_contact = sa.Table(
    "lead_contact",
    metadata,
    sa.Column("contact", sa.Text, primary_key=True),
    sa.Column("lead_id", sa.ForeignKey(lead.c.id, ondelete="CASCADE"), nullable=False),
    _conversation(),
    sa.Index("lead_contact_lead", "lead_id"),
    sa.Index("lead_contact_conversation", "conversation_id"),
)

outbox_table = outbox.table(metadata)
# A stop recalls messages by their id, even after RabbitMQ was down for a day.
sa.Index("outbox_message", outbox_table.c.message_id)
inbox_table = inbox.table(metadata)

Row = sa.RowMapping
