-- Critical alerts whose worker died while it sent them, for the fallback.
ALTER TABLE attempt VALIDATE CONSTRAINT attempt_outcome_known;

CREATE INDEX CONCURRENTLY delivery_critical_sent
    ON delivery (target) WHERE state = 'sending' AND severity = 'critical';
