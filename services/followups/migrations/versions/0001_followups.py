"""Conversations, their messages, and the follow-ups to them."""

from alembic import op

from libs.common import inbox, outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE chat_conversations (
    id uuid PRIMARY KEY,
    session_id text CONSTRAINT chat_conversations_session UNIQUE,
    email text,
    state jsonb NOT NULL DEFAULT '{}',
    score integer NOT NULL DEFAULT 0
        CONSTRAINT chat_conversations_score CHECK (score BETWEEN 0 AND 100),
    qualified_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chat_conversations_reachable CHECK (num_nonnulls(session_id, email) > 0)
);
CREATE INDEX chat_conversations_email ON chat_conversations (email);
-- A person who was enrolled by address only has one conversation without a chat.
CREATE UNIQUE INDEX chat_conversations_without_chat ON chat_conversations (email)
    WHERE session_id IS NULL;

CREATE TABLE chat_message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation_id uuid NOT NULL REFERENCES chat_conversations ON DELETE CASCADE,
    author text NOT NULL CONSTRAINT chat_message_author CHECK (author IN ('lead', 'bot')),
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX chat_message_conversation ON chat_message (conversation_id, id);

CREATE TABLE followup_event (
    id uuid PRIMARY KEY,
    conversation_id uuid NOT NULL REFERENCES chat_conversations ON DELETE CASCADE,
    followup_number integer NOT NULL
        CONSTRAINT followup_event_number_positive CHECK (followup_number > 0),
    email text NOT NULL,
    sequence text NOT NULL,
    step integer NOT NULL CONSTRAINT followup_event_step_positive CHECK (step > 0),
    enrolled_by text NOT NULL
        CONSTRAINT followup_event_enrolled_by CHECK (enrolled_by IN ('chat', 'api')),
    status text NOT NULL DEFAULT 'scheduled'
        CONSTRAINT followup_event_status CHECK (
            status IN ('scheduled', 'handed_over', 'sent', 'cancelled', 'in_doubt', 'failed')
        ),
    due_at timestamptz NOT NULL,
    handed_over_at timestamptz,
    sent_at timestamptz,
    reason text,
    request_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT followup_event_number UNIQUE (conversation_id, followup_number),
    CONSTRAINT followup_event_sent CHECK ((status = 'sent') = (sent_at IS NOT NULL)),
    CONSTRAINT followup_event_handed_over CHECK (
        CASE status
            WHEN 'scheduled' THEN handed_over_at IS NULL
            WHEN 'cancelled' THEN true
            WHEN 'failed' THEN true
            ELSE handed_over_at IS NOT NULL
        END
    ),
    CONSTRAINT followup_event_reason CHECK (
        CASE status
            WHEN 'cancelled' THEN reason IS NOT NULL
            WHEN 'failed' THEN reason IS NOT NULL
            WHEN 'in_doubt' THEN true
            ELSE reason IS NULL
        END
    )
);
CREATE INDEX followup_event_due ON followup_event (due_at) WHERE status = 'scheduled';
CREATE INDEX followup_event_email ON followup_event (email, handed_over_at);
"""


def upgrade() -> None:
    op.execute(TABLES)
    outbox.upgrade(op)
    op.execute("CREATE INDEX outbox_message ON outbox (message_id)")
    inbox.upgrade(op)
