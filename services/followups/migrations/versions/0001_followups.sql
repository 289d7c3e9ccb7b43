-- Conversations, their messages, follow-ups and leads.
\ir ../../../../libs/common/messaging/outbox_table.sql

\ir ../../../../libs/common/messaging/inbox_table.sql

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
    followups_ended_by text CONSTRAINT chat_conversations_followups_ended_by
        CHECK (followups_ended_by IN ('bounce', 'staff')),
    CONSTRAINT chat_conversations_reachable CHECK (num_nonnulls(session_id, email) > 0)
);
CREATE INDEX chat_conversations_email ON chat_conversations (email);
CREATE INDEX chat_conversations_updated ON chat_conversations (updated_at);
CREATE INDEX chat_conversations_phone ON chat_conversations ((state -> 'facts' ->> 'phone'));
-- Enrolled by e-mail alone, a recipient has one conversation without a chat.
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

CREATE TABLE chat_email (
    email text NOT NULL,
    conversation_id uuid NOT NULL REFERENCES chat_conversations ON DELETE CASCADE,
    PRIMARY KEY (email, conversation_id)
);
CREATE INDEX chat_email_conversation ON chat_email (conversation_id);

CREATE TABLE imported_grant (
    id uuid PRIMARY KEY,
    conversation_id uuid NOT NULL REFERENCES chat_conversations ON DELETE CASCADE
);
CREATE INDEX imported_grant_conversation ON imported_grant (conversation_id);

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
    outcome_at timestamptz,
    message_id uuid,
    stopped_by text,
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
COMMENT ON COLUMN followup_event.message_id IS 'of its hand-over; NULL: its own id';
COMMENT ON COLUMN followup_event.stopped_by IS 'meanwhile, should its hand-over come back';

CREATE TABLE lead (
    id uuid PRIMARY KEY,
    topic text NOT NULL,
    conversation_id uuid NOT NULL REFERENCES chat_conversations ON DELETE CASCADE,
    heard_in uuid NOT NULL,
    language text NOT NULL,
    score integer NOT NULL,
    known jsonb NOT NULL,
    notified jsonb,
    said jsonb NOT NULL DEFAULT '[]',
    version integer NOT NULL DEFAULT 0,
    due_at timestamptz,
    state text NOT NULL DEFAULT 'new'
        CONSTRAINT lead_state CHECK (state IN ('new', 'taken', 'won', 'lost', 'not_a_lead')),
    state_reason text,
    state_by text,
    state_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT lead_conversation_topic UNIQUE (conversation_id, topic)
);
CREATE INDEX lead_due ON lead (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX lead_created ON lead (created_at, id);

CREATE TABLE lead_contact (
    contact text PRIMARY KEY,
    lead_id uuid NOT NULL REFERENCES lead ON DELETE CASCADE,
    conversation_id uuid NOT NULL REFERENCES chat_conversations ON DELETE CASCADE
);
CREATE INDEX lead_contact_lead ON lead_contact (lead_id);
CREATE INDEX lead_contact_conversation ON lead_contact (conversation_id);

CREATE INDEX outbox_message ON outbox (message_id);
