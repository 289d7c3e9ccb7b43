-- Submissions of forms, and for a week who was erased.
CREATE TABLE lead_submission (
    id uuid PRIMARY KEY,
    form text NOT NULL,
    form_version text NOT NULL,
    conversation_id uuid REFERENCES chat_conversations ON DELETE CASCADE,
    language text NOT NULL,
    email text,
    phone text,
    fields jsonb NOT NULL,
    page text,
    notice_version text,
    consents_not_recorded text[] NOT NULL DEFAULT '{}',
    state text NOT NULL CONSTRAINT lead_submission_state
        CHECK (state IN ('accepted', 'suspected', 'released', 'discarded')),
    suspicion text,
    held jsonb,
    taken_by text,
    accepted_at timestamptz NOT NULL,
    CONSTRAINT lead_submission_held CHECK ((held IS NOT NULL) = (state = 'suspected')),
    CONSTRAINT lead_submission_conversation
        CHECK ((conversation_id IS NOT NULL) = (state IN ('accepted', 'released')))
);
COMMENT ON COLUMN lead_submission.held IS 'lead.submit, until a person has looked at it';
CREATE INDEX lead_submission_conversation_id ON lead_submission (conversation_id);
CREATE INDEX lead_submission_email ON lead_submission (email);
CREATE INDEX lead_submission_phone ON lead_submission (phone);
CREATE INDEX lead_submission_apart ON lead_submission (accepted_at, id)
    WHERE conversation_id IS NULL;

CREATE TABLE erased_contact (
    hash text PRIMARY KEY,
    erased_at timestamptz NOT NULL
);
COMMENT ON TABLE erased_contact IS 'keyed hashes, for as long as a submission may be on its way';
CREATE INDEX erased_contact_erased_at ON erased_contact (erased_at);

ALTER TABLE followup_event DROP CONSTRAINT followup_event_enrolled_by;
ALTER TABLE followup_event ADD CONSTRAINT followup_event_enrolled_by
    CHECK (enrolled_by IN ('chat', 'api', 'form'));
