-- What staff do with a lead: notes, calls, corrections, and who has it; counts of leads.
ALTER TABLE lead ADD COLUMN IF NOT EXISTS call_at timestamptz,
    ADD COLUMN IF NOT EXISTS reminded_at timestamptz,
    ADD COLUMN IF NOT EXISTS answered_at timestamptz;

CREATE INDEX CONCURRENTLY lead_state_created
    ON lead (state, created_at, id) INCLUDE (topic, owner);

CREATE INDEX CONCURRENTLY lead_won ON lead (state_at) WHERE state = 'won';

CREATE INDEX CONCURRENTLY lead_call ON lead (call_at) WHERE call_at IS NOT NULL;

ALTER TABLE lead ADD COLUMN revision integer NOT NULL DEFAULT 0,
    ADD COLUMN edited text[] NOT NULL DEFAULT '{}',
    ADD COLUMN order_value bigint,
    ADD COLUMN order_currency text;

COMMENT ON COLUMN lead.answered_at IS 'when staff first took or closed it; NULL: not yet, or before 0007';
COMMENT ON COLUMN lead.call_at IS 'when its owner planned to call';
COMMENT ON COLUMN lead.reminded_at IS 'when they were reminded of call_at';
COMMENT ON COLUMN lead.revision IS 'counts what staff and the person change; version counts events';
COMMENT ON COLUMN lead.edited IS 'facts of known that staff have corrected: only news replaces them';

CREATE TABLE lead_act (
    id bigint GENERATED ALWAYS AS IDENTITY,
    lead_id uuid NOT NULL,
    kind text NOT NULL,
    by text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    revision integer NOT NULL,
    text text,
    data jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT lead_act_pkey PRIMARY KEY (id),
    CONSTRAINT lead_act_kind CHECK (kind IN ('note', 'call', 'edit', 'owner', 'state')),
    CONSTRAINT lead_act_lead_id_fkey FOREIGN KEY (lead_id) REFERENCES lead (id) ON DELETE CASCADE
);

CREATE INDEX lead_act_lead ON lead_act (lead_id, id);
