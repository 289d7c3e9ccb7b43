COMMENT ON COLUMN lead_submission.lead_id IS 'NULL: it was sent before 0006, and belongs to the first lead of its conversation';

ALTER TABLE lead ADD COLUMN owner text;

COMMENT ON COLUMN lead.owner IS 'who took it last and did not give it back; NULL: nobody, or before 0006';
