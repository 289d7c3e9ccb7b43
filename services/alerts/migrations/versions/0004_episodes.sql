-- Whose an alert is, whether it says that others are over, and cases whose timer fails.
ALTER TABLE delivery ADD COLUMN caller text, ADD COLUMN resolved boolean NOT NULL DEFAULT false,
    ADD COLUMN fired_at timestamptz;
COMMENT ON COLUMN delivery.caller IS 'whose dedup_key it is; NULL: anyone''s of its source';
COMMENT ON COLUMN delivery.fired_at IS 'the acceptance of its last repeat';
ALTER TABLE alert_case ADD COLUMN caller text, ADD COLUMN failures integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN alert_case.failures IS 'of its timer, one after another';
