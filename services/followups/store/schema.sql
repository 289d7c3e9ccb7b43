-- Generated from the migrations by `make schema`; a test compares the two.

CREATE FUNCTION lead_words(known jsonb, heard text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    || ' ' || coalesce(known ->> 'email', '') || ' ' || coalesce(known ->> 'city', '') || ' '
    || coalesce(known ->> 'wish', '') || ' ' || heard), 'ąćęłńóśźżäöüß', 'acelnoszzaous')
$$;
CREATE FUNCTION outbox_notify() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '_outbox', '');
    RETURN NULL;
END
$$;

CREATE TABLE chat_conversations (
    id uuid NOT NULL,
    session_id text,
    email text,
    state jsonb DEFAULT '{}'::jsonb NOT NULL,
    score integer DEFAULT 0 NOT NULL,
    qualified_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    followups_ended_by text,
    CONSTRAINT chat_conversations_followups_ended_by CHECK ((followups_ended_by = ANY (ARRAY['bounce', 'staff']))),
    CONSTRAINT chat_conversations_reachable CHECK ((num_nonnulls(session_id, email) > 0)),
    CONSTRAINT chat_conversations_score CHECK (((score >= 0) AND (score <= 100))),
    CONSTRAINT chat_conversations_pkey PRIMARY KEY (id),
    CONSTRAINT chat_conversations_session UNIQUE (session_id)
);
CREATE INDEX chat_conversations_email ON chat_conversations (email);
CREATE INDEX chat_conversations_phone ON chat_conversations ((((state -> 'facts') ->> 'phone')));
CREATE INDEX chat_conversations_updated ON chat_conversations (updated_at);
CREATE UNIQUE INDEX chat_conversations_without_chat ON chat_conversations (email) WHERE (session_id IS NULL);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE chat_conversations TO followups;

CREATE TABLE chat_email (
    email text NOT NULL,
    conversation_id uuid NOT NULL,
    CONSTRAINT chat_email_pkey PRIMARY KEY (email, conversation_id),
    CONSTRAINT chat_email_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES chat_conversations(id) ON DELETE CASCADE
);
CREATE INDEX chat_email_conversation ON chat_email (conversation_id);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE chat_email TO followups;

CREATE TABLE chat_message (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    conversation_id uuid NOT NULL,
    author text NOT NULL,
    body text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT chat_message_author CHECK ((author = ANY (ARRAY['lead', 'bot']))),
    CONSTRAINT chat_message_pkey PRIMARY KEY (id),
    CONSTRAINT chat_message_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES chat_conversations(id) ON DELETE CASCADE
);
CREATE INDEX chat_message_conversation ON chat_message (conversation_id, id);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE chat_message TO followups;

CREATE TABLE erased_contact (
    hash text NOT NULL,
    erased_at timestamptz NOT NULL,
    CONSTRAINT erased_contact_pkey PRIMARY KEY (hash)
);
COMMENT ON TABLE erased_contact IS 'keyed hashes, for as long as a submission may be on its way';
CREATE INDEX erased_contact_erased_at ON erased_contact (erased_at);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE erased_contact TO followups;

CREATE TABLE followup_event (
    id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    followup_number integer NOT NULL,
    email text NOT NULL,
    sequence text NOT NULL,
    step integer NOT NULL,
    enrolled_by text NOT NULL,
    status text DEFAULT 'scheduled' NOT NULL,
    due_at timestamptz NOT NULL,
    handed_over_at timestamptz,
    sent_at timestamptz,
    reason text,
    request_id text,
    created_at timestamptz DEFAULT now() NOT NULL,
    outcome_at timestamptz,
    message_id uuid,
    stopped_by text,
    CONSTRAINT followup_event_enrolled_by CHECK ((enrolled_by = ANY (ARRAY['chat', 'api', 'form']))),
    CONSTRAINT followup_event_handed_over CHECK (
CASE status
    WHEN 'scheduled' THEN (handed_over_at IS NULL)
    WHEN 'cancelled' THEN true
    WHEN 'failed' THEN true
    ELSE (handed_over_at IS NOT NULL)
END),
    CONSTRAINT followup_event_number_positive CHECK ((followup_number > 0)),
    CONSTRAINT followup_event_reason CHECK (
CASE status
    WHEN 'cancelled' THEN (reason IS NOT NULL)
    WHEN 'failed' THEN (reason IS NOT NULL)
    WHEN 'in_doubt' THEN true
    ELSE (reason IS NULL)
END),
    CONSTRAINT followup_event_sent CHECK (((status = 'sent') = (sent_at IS NOT NULL))),
    CONSTRAINT followup_event_status CHECK ((status = ANY (ARRAY['scheduled', 'handed_over', 'sent', 'cancelled', 'in_doubt', 'failed']))),
    CONSTRAINT followup_event_step_positive CHECK ((step > 0)),
    CONSTRAINT followup_event_number UNIQUE (conversation_id, followup_number),
    CONSTRAINT followup_event_pkey PRIMARY KEY (id),
    CONSTRAINT followup_event_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES chat_conversations(id) ON DELETE CASCADE
);
COMMENT ON COLUMN followup_event.message_id IS 'of its hand-over; NULL: its own id';
COMMENT ON COLUMN followup_event.stopped_by IS 'meanwhile, should its hand-over come back';
CREATE INDEX followup_event_due ON followup_event (due_at) WHERE (status = 'scheduled');
CREATE INDEX followup_event_email ON followup_event (email, handed_over_at);
CREATE INDEX followup_event_sent ON followup_event (sent_at) WHERE (sent_at IS NOT NULL);
CREATE INDEX followup_event_unsettled ON followup_event (status, due_at, id) WHERE (status = ANY (ARRAY['handed_over', 'in_doubt']));
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE followup_event TO followups;

CREATE TABLE imported_grant (
    id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    CONSTRAINT imported_grant_pkey PRIMARY KEY (id),
    CONSTRAINT imported_grant_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES chat_conversations(id) ON DELETE CASCADE
);
CREATE INDEX imported_grant_conversation ON imported_grant (conversation_id);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE imported_grant TO followups;

CREATE TABLE inbox (
    consumer text NOT NULL,
    message_id text NOT NULL,
    received_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT inbox_pkey PRIMARY KEY (consumer, message_id)
);
CREATE INDEX inbox_received_at ON inbox (received_at);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE inbox TO followups;

CREATE TABLE lead (
    id uuid NOT NULL,
    topic text NOT NULL,
    conversation_id uuid NOT NULL,
    heard_in uuid NOT NULL,
    language text NOT NULL,
    score integer NOT NULL,
    known jsonb NOT NULL,
    notified jsonb,
    said jsonb DEFAULT '[]'::jsonb NOT NULL,
    version integer DEFAULT 0 NOT NULL,
    due_at timestamptz,
    state text DEFAULT 'new' NOT NULL,
    state_reason text,
    state_by text,
    state_at timestamptz DEFAULT now() NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    consent_at timestamptz,
    previous jsonb,
    owner text,
    call_at timestamptz,
    reminded_at timestamptz,
    answered_at timestamptz,
    revision integer DEFAULT 0 NOT NULL,
    edited text[] DEFAULT '{}'::text[] NOT NULL,
    order_value bigint,
    order_currency text,
    heard text DEFAULT '' NOT NULL,
    CONSTRAINT lead_state CHECK ((state = ANY (ARRAY['new', 'taken', 'won', 'lost', 'not_a_lead']))),
    CONSTRAINT lead_pkey PRIMARY KEY (id),
    CONSTRAINT lead_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES chat_conversations(id) ON DELETE CASCADE
);
COMMENT ON COLUMN lead.consent_at IS 'of consent''s last word on may_mail';
COMMENT ON COLUMN lead.previous IS 'id, state and owner, then, of the lead that this one follows';
COMMENT ON COLUMN lead.owner IS 'who took it last and did not give it back; NULL: nobody, or before 0006';
COMMENT ON COLUMN lead.call_at IS 'when its owner planned to call';
COMMENT ON COLUMN lead.reminded_at IS 'when they were reminded of call_at';
COMMENT ON COLUMN lead.answered_at IS 'when staff first took or closed it; NULL: not yet, or before 0007';
COMMENT ON COLUMN lead.revision IS 'counts what staff and the person change; version counts events';
COMMENT ON COLUMN lead.edited IS 'facts of known that staff have corrected: only news replaces them';
COMMENT ON COLUMN lead.heard IS 'the person''s words that staff were told, for the search';
CREATE INDEX lead_call ON lead (call_at) WHERE (call_at IS NOT NULL);
CREATE INDEX lead_conversation ON lead (conversation_id, topic);
CREATE INDEX lead_created ON lead (created_at, id);
CREATE INDEX lead_due ON lead (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX lead_ended ON lead (state_at) WHERE (state = ANY (ARRAY['won', 'lost']));
CREATE UNIQUE INDEX lead_previous ON lead (((previous ->> 'id'))) WHERE (previous IS NOT NULL);
CREATE INDEX lead_state_created ON lead (state, created_at, id) INCLUDE (topic, owner);
CREATE INDEX lead_won ON lead (state_at) WHERE (state = 'won');
CREATE INDEX lead_words ON lead USING gin (lead_words(known, heard) gin_trgm_ops);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE lead TO followups;

CREATE TABLE lead_act (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    lead_id uuid NOT NULL,
    kind text NOT NULL,
    by text NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    revision integer NOT NULL,
    text text,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT lead_act_kind CHECK ((kind = ANY (ARRAY['note', 'call', 'edit', 'owner', 'state']))),
    CONSTRAINT lead_act_pkey PRIMARY KEY (id),
    CONSTRAINT lead_act_lead_id_fkey FOREIGN KEY (lead_id) REFERENCES lead(id) ON DELETE CASCADE
);
CREATE INDEX lead_act_lead ON lead_act (lead_id, id);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE lead_act TO followups;

CREATE TABLE lead_contact (
    contact text NOT NULL,
    lead_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    CONSTRAINT lead_contact_pkey PRIMARY KEY (contact, lead_id),
    CONSTRAINT lead_contact_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES chat_conversations(id) ON DELETE CASCADE,
    CONSTRAINT lead_contact_lead_id_fkey FOREIGN KEY (lead_id) REFERENCES lead(id) ON DELETE CASCADE
);
CREATE INDEX lead_contact_conversation ON lead_contact (conversation_id);
CREATE INDEX lead_contact_lead ON lead_contact (lead_id);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE lead_contact TO followups;

CREATE TABLE lead_submission (
    id uuid NOT NULL,
    form text NOT NULL,
    form_version text NOT NULL,
    conversation_id uuid,
    language text NOT NULL,
    email text,
    phone text,
    fields jsonb NOT NULL,
    page text,
    notice_version text,
    consents_not_recorded text[] DEFAULT '{}'::text[] NOT NULL,
    state text NOT NULL,
    suspicion text,
    held jsonb,
    taken_by text,
    accepted_at timestamptz NOT NULL,
    lead_id uuid,
    CONSTRAINT lead_submission_conversation CHECK (((conversation_id IS NOT NULL) = (state = ANY (ARRAY['accepted', 'released'])))),
    CONSTRAINT lead_submission_held CHECK (((held IS NOT NULL) = (state = 'suspected'))),
    CONSTRAINT lead_submission_state CHECK ((state = ANY (ARRAY['accepted', 'suspected', 'released', 'discarded']))),
    CONSTRAINT lead_submission_pkey PRIMARY KEY (id),
    CONSTRAINT lead_submission_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES chat_conversations(id) ON DELETE CASCADE
);
COMMENT ON COLUMN lead_submission.held IS 'lead.submit, until a person has looked at it';
COMMENT ON COLUMN lead_submission.lead_id IS 'NULL: it was sent before 0006, and belongs to the first lead of its conversation';
CREATE INDEX lead_submission_apart ON lead_submission (accepted_at, id) WHERE (conversation_id IS NULL);
CREATE INDEX lead_submission_conversation_id ON lead_submission (conversation_id);
CREATE INDEX lead_submission_email ON lead_submission (email);
CREATE INDEX lead_submission_lead_id ON lead_submission (lead_id);
CREATE INDEX lead_submission_phone ON lead_submission (phone);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE lead_submission TO followups;

CREATE TABLE mail (
    key text NOT NULL,
    kind text NOT NULL,
    step_id uuid,
    conversation_id uuid,
    email text,
    status text,
    received_at timestamptz DEFAULT now() NOT NULL,
    told_at timestamptz,
    CONSTRAINT mail_pkey PRIMARY KEY (key),
    CONSTRAINT mail_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES chat_conversations(id) ON DELETE CASCADE
);
COMMENT ON TABLE mail IS 'each mail that came back, once; what a person wrote is in their conversation';
COMMENT ON COLUMN mail.key IS 'hash of Message-ID and body';
COMMENT ON COLUMN mail.email IS 'of our recipient; of a mail that we did not cause, of its sender';
COMMENT ON COLUMN mail.told_at IS 'when staff were told of one that we did not cause';
CREATE INDEX mail_conversation ON mail (conversation_id);
CREATE INDEX mail_email ON mail (email, received_at);
CREATE INDEX mail_received ON mail (received_at);
CREATE INDEX mail_untold ON mail (received_at) WHERE ((kind = 'unknown') AND (told_at IS NULL));
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE mail TO followups;

CREATE TABLE mailbox (
    name text NOT NULL,
    validity bigint NOT NULL,
    uid bigint NOT NULL,
    left_alone bigint DEFAULT 0 NOT NULL,
    told_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT mailbox_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE mailbox IS 'of one that people read, too: up to which UID it was read';
COMMENT ON COLUMN mailbox.left_alone IS 'mails that name no step, since staff were told';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE mailbox TO followups;

CREATE TABLE outbox (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    message_id text NOT NULL,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    type text NOT NULL,
    body jsonb NOT NULL,
    headers jsonb NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    due_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT outbox_pkey PRIMARY KEY (id)
);
CREATE INDEX outbox_due ON outbox (due_at, id);
CREATE INDEX outbox_message ON outbox (message_id);
CREATE TRIGGER outbox_notify AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify();
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox TO followups;

CREATE TABLE undeliverable (
    email text NOT NULL,
    conversation_id uuid NOT NULL,
    reason text NOT NULL,
    since timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT undeliverable_pkey PRIMARY KEY (email)
);
CREATE INDEX undeliverable_conversation ON undeliverable (conversation_id);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE undeliverable TO followups;
