-- Targets that refuse us: what they said, and when one accepted an alert again.
ALTER TABLE breaker ADD COLUMN held text, ADD COLUMN healed_at timestamptz;
COMMENT ON COLUMN breaker.held IS 'what the target said when it refused us';
COMMENT ON COLUMN breaker.healed_at IS 'when it accepted an alert after it refused us';
-- The new one allows more.
-- squawk-ignore ban-drop-constraint
ALTER TABLE attempt DROP CONSTRAINT attempt_outcome_known, ADD CONSTRAINT attempt_outcome_known
    CHECK (outcome IN ('delivered', 'failed', 'never', 'later', 'held', 'unknown')) NOT VALID;
