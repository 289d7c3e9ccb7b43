-- A contact may have many leads, and a conversation many requests.
ALTER TABLE lead ADD COLUMN IF NOT EXISTS previous jsonb;

CREATE INDEX CONCURRENTLY lead_conversation ON lead (conversation_id, topic);

CREATE UNIQUE INDEX CONCURRENTLY lead_previous
    ON lead ((previous ->> 'id')) WHERE previous IS NOT NULL;

CREATE UNIQUE INDEX CONCURRENTLY lead_contact_many ON lead_contact (contact, lead_id);

COMMENT ON COLUMN lead.previous IS 'id, state and owner, then, of the lead that this one follows';

-- No code names these two: the release before inserts leads ON CONFLICT (id), and contacts ON CONFLICT
-- of whatever key (docs/decisions/0059).
-- squawk-ignore ban-drop-constraint
ALTER TABLE lead DROP CONSTRAINT lead_conversation_topic;

-- squawk-ignore ban-drop-constraint
ALTER TABLE lead_contact DROP CONSTRAINT lead_contact_pkey,
    ADD CONSTRAINT lead_contact_pkey PRIMARY KEY USING INDEX lead_contact_many;
