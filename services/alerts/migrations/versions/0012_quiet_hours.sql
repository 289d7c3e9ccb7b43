-- Quiet hours that people set themselves; they come before those of alerts.toml.
CREATE TABLE quiet_hours (
    person text PRIMARY KEY,
    weekly jsonb NOT NULL,
    critical boolean NOT NULL,
    by text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE quiet_hours IS 'when a person of [people] is asked after others';
COMMENT ON COLUMN quiet_hours.weekly IS 'days (1 is Monday), begins, ends and zone';
COMMENT ON COLUMN quiet_hours.critical IS 'also of critical alerts';
