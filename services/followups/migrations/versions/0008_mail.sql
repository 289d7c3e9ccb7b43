-- Mail that came back, addresses that take none, and how far a shared mailbox was read.
CREATE INDEX CONCURRENTLY followup_event_sent
    ON followup_event (sent_at) WHERE sent_at IS NOT NULL;

CREATE TABLE mail (
    key text NOT NULL,
    kind text NOT NULL,
    step_id uuid,
    conversation_id uuid,
    email text,
    status text,
    received_at timestamptz NOT NULL DEFAULT now(),
    told_at timestamptz,
    CONSTRAINT mail_pkey PRIMARY KEY (key),
    CONSTRAINT mail_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES chat_conversations (id) ON DELETE CASCADE
);

COMMENT ON TABLE mail IS 'each mail that came back, once; what a person wrote is in their conversation';
COMMENT ON COLUMN mail.key IS 'hash of Message-ID and body';
COMMENT ON COLUMN mail.email IS 'of our recipient; of a mail that we did not cause, of its sender';
COMMENT ON COLUMN mail.told_at IS 'when staff were told of one that we did not cause';

CREATE INDEX mail_email ON mail (email, received_at);
CREATE INDEX mail_received ON mail (received_at);
CREATE INDEX mail_conversation ON mail (conversation_id);
CREATE INDEX mail_untold ON mail (received_at) WHERE kind = 'unknown' AND told_at IS NULL;

CREATE TABLE undeliverable (
    email text NOT NULL,
    conversation_id uuid NOT NULL,
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT undeliverable_pkey PRIMARY KEY (email)
);

CREATE INDEX undeliverable_conversation ON undeliverable (conversation_id);

CREATE TABLE mailbox (
    name text NOT NULL,
    validity bigint NOT NULL,
    uid bigint NOT NULL,
    left_alone bigint NOT NULL DEFAULT 0,
    told_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT mailbox_pkey PRIMARY KEY (name)
);

COMMENT ON TABLE mailbox IS 'of one that people read, too: up to which UID it was read';
COMMENT ON COLUMN mailbox.left_alone IS 'mails that name no step, since staff were told';
