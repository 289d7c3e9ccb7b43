"""The tables, as the migrations make them."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from libs.common import inbox, outbox
from services.followups.followup import CHASE_ENDS, STATES

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
    sa.Column("chase_ended_by", sa.Text),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("updated_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.UniqueConstraint("session_id", name="chat_conversations_session"),
    sa.CheckConstraint("score BETWEEN 0 AND 100", name="chat_conversations_score"),
    sa.CheckConstraint(
        f"chase_ended_by IN ({', '.join(repr(reason) for reason in CHASE_ENDS)})",
        name="chat_conversations_chase_ended_by",
    ),
    sa.CheckConstraint("num_nonnulls(session_id, email) > 0", name="chat_conversations_reachable"),
    sa.Index("chat_conversations_email", "email"),
    sa.Index("chat_conversations_updated", "updated_at"),
    sa.Index(
        "chat_conversations_without_chat",
        "email",
        unique=True,
        postgresql_where=sa.text("session_id IS NULL"),
    ),
)

chat_message = sa.Table(
    "chat_message",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column(
        "conversation_id",
        sa.ForeignKey(chat_conversations.c.id, ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.CheckConstraint("author IN ('lead', 'bot')", name="chat_message_author"),
    sa.Index("chat_message_conversation", "conversation_id", "id"),
)

# Every address that was named in a conversation: the one that counts may be another.
chat_address = sa.Table(
    "chat_address",
    metadata,
    sa.Column("email", sa.Text, primary_key=True),
    sa.Column(
        "conversation_id",
        sa.ForeignKey(chat_conversations.c.id, ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Index("chat_address_conversation", "conversation_id"),
)

# By which message consent was told of an agreement that came with an imported lead.
imported_grant = sa.Table(
    "imported_grant",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column(
        "conversation_id",
        sa.ForeignKey(chat_conversations.c.id, ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Index("imported_grant_conversation", "conversation_id"),
)

followup_event = sa.Table(
    "followup_event",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column(
        "conversation_id",
        sa.ForeignKey(chat_conversations.c.id, ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("followup_number", sa.Integer, nullable=False),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("sequence", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("enrolled_by", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'scheduled'")),
    sa.Column("due_at", _timestamptz, nullable=False),
    sa.Column("handed_over_at", _timestamptz),
    sa.Column("sent_at", _timestamptz),
    sa.Column("settled_at", _timestamptz),
    sa.Column("reason", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.UniqueConstraint("conversation_id", "followup_number", name="followup_event_number"),
    sa.CheckConstraint(
        f"status IN ({', '.join(repr(state) for state in STATES)})", name="followup_event_status"
    ),
    sa.Index("followup_event_due", "due_at", postgresql_where=sa.text("status = 'scheduled'")),
    sa.Index("followup_event_email", "email", "handed_over_at"),
)

outbox_table = outbox.table(metadata)
# A stop takes messages back by their id, also when RabbitMQ was away for a day.
sa.Index("outbox_message", outbox_table.c.message_id)
inbox_table = inbox.table(metadata)

Row = sa.RowMapping
