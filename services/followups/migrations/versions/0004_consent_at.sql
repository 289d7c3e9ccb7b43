-- A lead's consent is what the consent service says, not what was said in the chat.
ALTER TABLE lead ADD COLUMN consent_at timestamptz;

COMMENT ON COLUMN lead.consent_at IS 'of consent''s last word on may_mail';

-- A yes in the chat that nobody has confirmed was noted as given.
UPDATE lead SET known = known - 'may_mail', notified = notified - 'may_mail'
    WHERE known ->> 'may_mail' = 'given';
