-- A form names its lead, and a lead who has it.
ALTER TABLE lead_submission ADD COLUMN IF NOT EXISTS lead_id uuid;

CREATE INDEX CONCURRENTLY lead_submission_lead_id ON lead_submission (lead_id);

COMMENT ON COLUMN lead_submission.lead_id IS 'NULL: it was sent before 0006, and belongs to the first lead of its conversation';

ALTER TABLE lead ADD COLUMN owner text;

COMMENT ON COLUMN lead.owner IS 'who took it last and did not give it back; NULL: nobody, or before 0006';
